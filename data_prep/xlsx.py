"""The first sheet of an `.xlsx` workbook: a zip archive of XML files (ECMA-376), read without further packages."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
import zipfile
import zlib
from pathlib import Path

_SHEET = "xl/worksheets/sheet1.xml"
_STRINGS = "xl/sharedStrings.xml"
_MAX_BYTES = 32 * 2**20  # of one part, unpacked; 10,646 rows of 16 columns are 10 MB
_CELL = re.compile(r"([A-Z]{1,3})\d{1,7}")


def read_xlsx(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    """The names in the first row of the first sheet, and the other rows by these names, without empty cells and rows.

    Formulas count by the value that was saved with them. Document type declarations, and so entities, are refused.

    Raises:
        ValueError: in one line, if the file is no workbook, is damaged, or is larger than a table of records can be.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            strings = [_text(item) for item in _parse(archive, _STRINGS)] if _STRINGS in archive.namelist() else []
            rows = [_cells(row, strings) for row in _parse(archive, _SHEET).iterfind("{*}sheetData/{*}row")]
    except (OSError, ValueError, LookupError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, ET.ParseError) as error:
        why = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is no readable .xlsx workbook ({why}); save it as CSV and use that") from error
    names = rows[0] if rows else {}
    return list(names.values()), [
        {names[column]: text for column, text in row.items() if column in names} for row in rows[1:] if row
    ]


def _parse(archive: zipfile.ZipFile, part: str) -> ET.Element:
    if archive.getinfo(part).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{part} is packed in an unusual way")
    with archive.open(part) as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{part} is larger than {_MAX_BYTES} bytes")
    text = content.decode("utf-8-sig")  # a str is parsed whatever encoding it declares, so that nothing hides from this search
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{part} has a document type declaration; refused")
    return ET.fromstring(text)


def _cells(row: ET.Element, strings: list[str]) -> dict[int, str]:
    """The texts of a row's cells by column number; A is 1."""
    cells: dict[int, str] = {}
    column = 0
    for cell in row.iterfind("{*}c"):
        column = _column(cell.get("r")) or column + 1
        if cell.get("t") == "inlineStr":
            text = "".join(map(_text, cell.iterfind("{*}is")))
        else:
            text = cell.findtext("{*}v") or ""
            if cell.get("t") == "s" and text:
                text = strings[_index(text, len(strings))]
        if text.strip():
            cells[column] = text.strip()
    return cells


def _column(reference: str | None) -> int:
    """`C7` -> 3; 0 where a cell has no reference, as it may."""
    if reference is None:
        return 0
    match = _CELL.fullmatch(reference)
    if not match:
        raise ValueError(f"{reference[:20]!r} is no cell")
    number = 0
    for letter in match[1]:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


def _index(text: str, count: int) -> int:
    index = int(text[:10])
    if not 0 <= index < count:
        raise ValueError(f"text {index} of {count} does not exist")
    return index


def _text(item: ET.Element) -> str:
    """A text, plain (`t`) or in parts of their own format (`r/t`), without phonetic hints (`rPh`)."""
    return "".join(node.text or "" for path in ("{*}t", "{*}r/{*}t") for node in item.iterfind(path))
