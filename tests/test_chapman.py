import csv
import os
import re
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest

from ecgtf.data_prep.chapman import read_chapman, read_csv_signal
from ecgtf.data_prep.prepare import prepare
from ecgtf.data_prep.xlsx import read_xlsx
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, SPLITS, Record, Rejection, select_leads
from ecgtf.shards import read_records
from ecgtf.tasks import TASKS
from ecgtf.wfdb_io import read_record, write_record

CHAPMAN = Path(__file__).parents[2] / "shared" / "data" / "chapman-shaoxing"
COLUMNS = ("FileName", "Rhythm", "Beat", "PatientAge", "Gender", "VentricularRate")
MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
ROW = ",".join(["1000"] * 12)


def put(folder, name, *comments):
    return write_record(folder, name, np.zeros((10, 12)), comments=comments)


def row(name, rhythm="SB", beat="NONE", age="85", gender="MALE"):
    return {"FileName": name, "Rhythm": rhythm, "Beat": beat, "PatientAge": age, "Gender": gender, "VentricularRate": "59"}


def put_csv(folder, name, header=LEADS):
    """5 samples; sample i of column k is 1000 i + k microvolts."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join(header)] if header else []
    lines += [",".join(f"{1000 * i + k:.3f}" for k in range(12)) for i in range(5)]
    (folder / f"{name}.csv").write_text("\r\n".join(lines) + "\r\n")
    return folder / f"{name}.csv"


def write_xlsx(path, rows, prolog="", compression=zipfile.ZIP_DEFLATED, strings=None):
    """A workbook as spreadsheet programs write it: shared strings, numbers as such, empty cells left out."""
    shared, lines = [], []
    for number, cells in enumerate(rows, start=1):
        line = ""
        for column, text in zip("ABCDEFGH", cells, strict=False):
            if text.replace(".", "").isdigit():
                line += f'<c r="{column}{number}"><v>{text}</v></c>'
            elif text:
                line += f'<c r="{column}{number}" t="s"><v>{len(shared)}</v></c>'
                shared.append(text)
        lines.append(f'<row r="{number}">{line}</row>')
    strings = strings or "".join(f"<si><t>{escape(text)}</t></si>" for text in shared)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/sharedStrings.xml", f'<?xml version="1.0" encoding="UTF-8"?>{prolog}<sst {MAIN}>{strings}</sst>')
        archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet {MAIN}><sheetData>{''.join(lines)}</sheetData></worksheet>")
    return path


def figshare(root, rows, table="Diagnostics.xlsx"):
    root.mkdir(parents=True, exist_ok=True)
    if table.endswith(".xlsx"):
        write_xlsx(root / table, [COLUMNS, *(item.values() for item in rows)])
    else:
        with (root / table).open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    return root


class TestPhysioNet:
    def test_snomed_codes_of_the_headers(self, tmp_path):
        folder = tmp_path / "WFDBRecords" / "01" / "010"
        path = put(folder, "JS00001", "Age: 85", "Sex: Male", "Dx: 164889003,59118001,164934002")
        put(folder, "JS00002", "Age: >89", "Sex: Female", "Dx: 164890007")
        names = "\ufeffAcronymName,FullName,Snomed_CT\nAF,Atrial Flutter,164890007\n"
        (tmp_path / "ConditionNames_SNOMED-CT.csv").write_text(names, encoding="utf-8")
        first, second = read_chapman(tmp_path)
        assert first == Record(
            "chapman/WFDBRecords/01/010/JS00001",
            ("164889003", "59118001", "164934002"),
            sampling_rate=500.0,
            path=path,
            age=85.0,
            sex="male",
        )
        assert (second.codes, second.age, second.sex) == (("164890007",), 90.0, "female")
        assert TASKS["rhythm7"].classes[TASKS["rhythm7"].labels([second.codes])[0].argmax()] == "AFLT"

    def test_the_header_that_lost_a_line_break_is_rejected_alone(self, tmp_path):
        """JS01052's record line runs into its first signal line."""
        for name in ("JS01051", "JS01052", "JS01053"):
            put(tmp_path, name, "Dx: 426177001")
        broken = tmp_path / "JS01052.hea"
        lines = broken.read_text().splitlines()
        broken.write_text("\n".join(["JS01052 12 500 500000/mV 16 0 15 31255 0 I", *lines[2:]]))
        items = list(read_chapman(tmp_path))
        assert [type(item) for item in items] == [Record, Rejection, Record]
        assert items[1] == Rejection("chapman/JS01052", "JS01052.hea: expected a number of samples, found '500000/mV'")

    def test_links_out_of_the_folder_are_rejected_alone(self, tmp_path):
        put(tmp_path / "root", "JS00001")
        put(tmp_path, "JS00002")
        os.symlink(tmp_path / "JS00002.hea", tmp_path / "root" / "JS00002.hea")
        good, link = read_chapman(tmp_path / "root")
        assert isinstance(good, Record)
        assert link == Rejection("chapman/JS00002", "the header lies outside the folder; refused")


class TestFigshare:
    @pytest.mark.parametrize("table", ["Diagnostics.xlsx", "Diagnostics.csv"])
    def test_rows_become_records_in_their_order(self, tmp_path, table):
        root = figshare(tmp_path, [row("MUSE_2", "AFIB", "RBBB TWC"), row("MUSE_1", "SR", "NONE", "59.0", "FEMALE")], table)
        paths = [put_csv(root / "ECGData", name) for name in ("MUSE_1", "MUSE_2")]
        assert list(read_chapman(root)) == [
            Record(
                "chapman/ECGData/MUSE_2",
                ("164889003", "Beat:RBBB", "Beat:TWC"),
                sampling_rate=500.0,
                path=paths[1],
                age=85.0,
                sex="male",
            ),
            Record("chapman/ECGData/MUSE_1", ("426783006",), sampling_rate=500.0, path=paths[0], age=59.0, sex="female"),
        ]

    @pytest.mark.parametrize(
        ("rhythm", "code", "native", "merged"),
        [
            ("SB", "426177001", "SBRAD", "SB"),
            ("SR", "426783006", "SR", "SR"),
            ("AFIB", "164889003", "AFIB", "AFIB"),
            ("AF", "164890007", "AFLT", "AFIB"),  # flutter, not what the challenges mean by it
            ("ST", "427084000", "STACH", "GSVT"),
            ("SA", "427393009", "SARRH", "SR"),
            ("SI", "427393009", "SARRH", "SR"),
            ("SVT", "426761007", "SVTAC", "GSVT"),
            ("AT", "713422000", "AT", "GSVT"),
            ("AVNRT", "233896004", "AVNRT", "GSVT"),
            ("AVRT", "233897008", "AVRT", "GSVT"),
            ("SAAWR", "195101003", "SAAWR", "GSVT"),
        ],
    )
    def test_rhythms(self, tmp_path, rhythm, code, native, merged):
        put_csv(tmp_path / "ECGData", "a")
        (record,) = read_chapman(figshare(tmp_path, [row("a", rhythm)]))
        assert record.codes == (code,)
        for task, name in ((TASKS["native"], native), (TASKS["rhythm4"], merged)):
            assert task.code_of(task.labels([record.codes])[0]) == (f"{task.name}:{name}",)

    def test_beat_abbreviations_are_no_statements_of_ptb_xl(self, tmp_path):
        put_csv(tmp_path / "ECGData", "a")
        (record,) = read_chapman(figshare(tmp_path, [row("a", "", "STTC MI 1AVB")]))
        assert record.codes == ("Beat:STTC", "Beat:MI", "Beat:1AVB")
        assert not TASKS["superclass"].labels([record.codes]).any()

    def test_an_unknown_rhythm_stays_as_it_is_written(self, tmp_path):
        put_csv(tmp_path / "ECGData", "a")
        (record,) = read_chapman(figshare(tmp_path, [row("a", "JEB", "none", "unknown", "?")]))
        assert (record.codes, record.age, record.sex) == (("JEB",), None, None)

    def test_raw_files_go_before_denoised_ones(self, tmp_path):
        root = figshare(tmp_path, [row("a"), row("b")])
        put_csv(root / "ECGDataDenoised" / "ECGDataDenoised", "a", header=None)
        put_csv(root / "ECGData", "a")
        put_csv(root / "ECGDataDenoised" / "ECGDataDenoised", "b", header=None)
        ids = ["chapman/ECGData/a", "chapman/ECGDataDenoised/ECGDataDenoised/b"]
        assert [record.id for record in read_chapman(root)] == ids

    def test_what_is_in_one_place_only_is_rejected(self, tmp_path):
        root = figshare(tmp_path / "root", [row("a.csv"), row("a"), row("b"), row("../c"), row(""), row(""), row("d")])
        for folder, name in ((root / "ECGData", "a"), (root / "ECGData", "e"), (tmp_path, "c"), (tmp_path, "d")):
            put_csv(folder, name)
        os.symlink(tmp_path / "d.csv", root / "ECGData" / "d.csv")
        (root / "ECGData" / ".csv").write_text(ROW)
        (root / "RhythmNames.csv").write_text("Acronym Name,Full Name\n")  # no record, and not beside them
        first, *rest = read_chapman(root)
        assert first.id == "chapman/ECGData/a"
        assert rest == [
            Rejection("chapman/ECGData/a", "stands twice in Diagnostics.xlsx"),
            Rejection("chapman/b", "is in Diagnostics.xlsx, but there is no CSV file of that name"),
            Rejection("chapman/../c", "is in Diagnostics.xlsx, but there is no CSV file of that name"),
            Rejection("chapman/line 6", "has no FileName in Diagnostics.xlsx"),
            Rejection("chapman/line 7", "has no FileName in Diagnostics.xlsx"),
            Rejection("chapman/ECGData/d", "the CSV file lies outside the folder; refused"),
            Rejection("chapman/ECGData/e", "is not in Diagnostics.xlsx"),
        ]

    def test_a_table_that_cannot_be_used_is_an_error_at_once(self, tmp_path):
        put_csv(tmp_path / "ECGData", "a")
        (tmp_path / "Diagnostics.csv").write_text("FileName,Rhythm\na,SB\n")
        with pytest.raises(ValueError, match=r"Diagnostics\.csv lacks the columns Beat, PatientAge, Gender; expected FileName"):
            read_chapman(tmp_path)
        (tmp_path / "Diagnostics.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ValueError, match=r"Diagnostics\.csv is no readable CSV file"):
            read_chapman(tmp_path)
        (tmp_path / "Diagnostics.xlsx").write_text("FileName,Rhythm\n")
        with pytest.raises(ValueError, match=r"Diagnostics\.xlsx is no readable \.xlsx workbook .*save it as CSV"):
            read_chapman(tmp_path)


class TestNeitherForm:
    def test_errors_say_what_was_expected_and_found(self, tmp_path):
        with pytest.raises(ValueError, match=r"expected a folder of Chapman-Shaoxing, but .*nothing is no folder"):
            read_chapman(tmp_path / "nothing")
        with pytest.raises(ValueError, match=r"found no Diagnostics\.xlsx, no CSV files and no \*\.hea") as caught:
            read_chapman(tmp_path)
        assert len(str(caught.value).splitlines()) == 1
        put_csv(tmp_path / "ECGData", "a")
        with pytest.raises(ValueError, match=r"found no Diagnostics\.xlsx, 1 CSV files"):
            read_chapman(tmp_path)
        with pytest.raises(ValueError, match=r"found Diagnostics\.csv, no CSV files"):
            read_chapman(figshare(tmp_path / "other", [row("a")], "Diagnostics.csv"))

    def test_both_forms_in_one_folder_are_refused(self, tmp_path):
        put_csv(figshare(tmp_path, [row("a")]) / "ECGData", "a")
        put(tmp_path / "WFDBRecords", "JS00001")
        with pytest.raises(ValueError, match=r"holds both Diagnostics\.xlsx and WFDB records \(WFDBRecords/JS00001\.hea\)"):
            read_chapman(tmp_path)


class TestSignals:
    def test_raw_and_denoised_files_in_millivolts(self, tmp_path):
        expected = (1000 * np.arange(5)[:, None] + np.arange(12)) / 1000
        for header in (LEADS, None):
            signal, leads, rate = read_csv_signal(put_csv(tmp_path, "a", header))
            assert (signal.dtype, leads, rate) == (np.float32, LEADS, 500.0)
            np.testing.assert_allclose(signal, expected, rtol=1e-6)

    def test_leads_go_by_name(self, tmp_path):
        names = [f'"{lead.upper()}"' for lead in LEADS[::-1]]
        signal, leads, _ = read_csv_signal(put_csv(tmp_path, "a", names))
        assert leads == LEADS[::-1]
        np.testing.assert_allclose(signal[0], np.arange(12) / 1000, rtol=1e-6)

    def test_a_byte_order_mark_and_missing_samples(self, tmp_path):
        (tmp_path / "a.csv").write_text("\ufeff" + ",".join(LEADS) + f"\n{ROW}\n{ROW[:-4]}nan", encoding="utf-8")
        signal, _, _ = read_csv_signal(tmp_path / "a.csv")
        assert signal.shape == (2, 12)
        assert np.isnan(signal).sum() == 1

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "holds no samples"),
            (",".join(LEADS) + "\n", "holds no samples"),
            ("1,2,3\n", "expected 12 columns, found 3"),
            ("I,II,III\n1,2,3\n", "expected 12 columns, found 3"),
            (ROW.replace(",", ";"), "expected 12 columns, found 1"),
            (f"{ROW}\n{ROW},1\n", "columns changed from 12 to 13"),
            (f"{ROW}\n{ROW[:-5]}\n", "columns changed from 12 to 11"),
            (f"{ROW}\n{ROW[:-4]}x\n", "could not convert string 'x'"),
            (f"{ROW}\n{ROW[:-4]}\n", "could not convert string ''"),
            (f"{ROW}\n{ROW[:-4]}__import__('os').getcwd()\n", "could not convert string"),
            (f"{ROW}\n{ROW[:-4]}=1+1\n", "could not convert string '=1\\+1'"),
            (f"{ROW}\n{ROW[:-4]}#1\n", "could not convert string"),
            (f"{ROW[:-4]}x\n{ROW}\n", "could not convert string 'x'"),
            (f"{ROW}\n{ROW[:-4]}1e999\n", "no finite number"),
            (f"{ROW}\n{ROW[:-4]}inf\n", "no finite number"),
            (",".join("abcdefghijkl") + f"\n{ROW}\n", "unknown lead name 'a'"),
            (",".join(["I"] * 12) + f"\n{ROW}\n", "lead I is named more than once"),
        ],
    )
    def test_a_faulty_file_is_refused_in_one_line(self, tmp_path, text, match):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match=match) as caught:
            read_csv_signal(tmp_path / "a.csv")
        assert str(caught.value).endswith("(a.csv)")
        assert len(str(caught.value).splitlines()) == 1

    def test_what_is_no_plain_readable_text_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="cannot be read: No such file"):
            read_csv_signal(tmp_path / "a.csv")
        os.mkfifo(tmp_path / "pipe.csv")
        with pytest.raises(ValueError, match="expected a plain file"):
            read_csv_signal(tmp_path / "pipe.csv")
        (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ValueError, match="is no text"):
            read_csv_signal(tmp_path / "binary.csv")
        with (tmp_path / "large.csv").open("wb") as file:
            file.truncate(50_000_001)
        with pytest.raises(ValueError, match="expected at most 50000000 bytes, found 50000001"):
            read_csv_signal(tmp_path / "large.csv")


class TestWorkbook:
    def test_empty_cells_and_rows(self, tmp_path):
        path = write_xlsx(tmp_path / "a.xlsx", [("A", "B", "C"), ("x", "", "5"), ("", "", ""), ("", "y & <z>", "", "no name")])
        assert read_xlsx(path) == (["A", "B", "C"], [{"A": "x", "C": "5"}, {"B": "y & <z>"}])

    def test_texts_in_parts_inline_and_without_references(self, tmp_path):
        strings = "<si><r><t>Na</t></r><r><rPr><b/></rPr><t>me</t></r><rPh sb='0' eb='1'><t>hint</t></rPh></si>"
        sheet = "<row><c t='s'><v>0</v></c><c t='inlineStr'><is><t>In</t></is></c></row><row><c t='str'><v>x</v></c><c/></row>"
        with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
            archive.writestr("xl/sharedStrings.xml", f"<sst {MAIN}>{strings}</sst>")
            archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet {MAIN}><sheetData>{sheet}</sheetData></worksheet>")
        assert read_xlsx(tmp_path / "a.xlsx") == (["Name", "In"], [{"Name": "x"}])

    @pytest.mark.parametrize(
        ("prolog", "encoding"),
        [
            ('<!DOCTYPE sst [<!ENTITY a "aaaa">]>', "utf-8"),
            ('<!DOCTYPE sst SYSTEM "file:///etc/passwd">', "utf-8"),
            ('<!DOCTYPE sst [<!ENTITY a "aaaa">]>', "utf-16"),
        ],
    )
    def test_document_types_and_entities_are_refused(self, tmp_path, prolog, encoding):
        write_xlsx(tmp_path / "a.xlsx", [("A",), ("x",)])
        with zipfile.ZipFile(tmp_path / "a.xlsx") as good, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as archive:
            for name in ("xl/sharedStrings.xml", "xl/worksheets/sheet1.xml"):
                text = good.read(name).decode().removeprefix('<?xml version="1.0" encoding="UTF-8"?>')
                archive.writestr(name, (prolog + text).encode(encoding))
        with pytest.raises(ValueError, match=r"no readable \.xlsx workbook \((.*document type|.*codec can't decode)") as caught:
            read_xlsx(tmp_path / "b.xlsx")
        assert len(str(caught.value).splitlines()) == 1

    def test_damaged_and_hostile_archives_are_refused_in_one_line(self, tmp_path):
        good = write_xlsx(tmp_path / "good.xlsx", [("A",), ("x",)]).read_bytes()
        (tmp_path / "cut.xlsx").write_bytes(good[: len(good) // 2])
        (tmp_path / "flip.xlsx").write_bytes(good.replace(b"\x78\x6c\x2f\x77", b"\x78\x6c\x2f\x76"))
        write_xlsx(tmp_path / "missing.xlsx", [("A",)], strings=" ")
        write_xlsx(tmp_path / "malformed.xlsx", [("A",)], strings="<si><t>")
        write_xlsx(tmp_path / "packed.xlsx", [("A",)], compression=zipfile.ZIP_LZMA)
        with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/worksheets/sheet1.xml", b" " * (2**25 + 1))
        with zipfile.ZipFile(tmp_path / "empty.xlsx", "w") as archive:
            archive.writestr("a", "")
        names = ("cut", "flip", "missing", "malformed", "packed", "bomb", "empty", "nothing")
        for name in names:
            with pytest.raises(ValueError, match=r"is no readable \.xlsx workbook") as caught:
                read_xlsx(tmp_path / f"{name}.xlsx")
            assert len(str(caught.value).splitlines()) == 1, name


@pytest.mark.skipif(not CHAPMAN.is_dir(), reason="the Chapman-Shaoxing part is not here")
def test_real_part():
    texts = [path.read_text(encoding="utf-8") for path in CHAPMAN.rglob("*.hea")]
    codes = {
        "SBRAD": "426177001",
        "STACH": "427084000",
        "SR": "426783006",
        "AFLT": "164890007",
        "SARRH": "427393009",
        "AFIB": "164889003",
    }
    counted = {
        name: sum(bool(re.search(rf"^#\s*Dx:.*\b{code}\b", text, re.MULTILINE)) for text in texts)
        for name, code in codes.items()
    }
    assert counted == {"SBRAD": 25, "STACH": 22, "SR": 14, "AFLT": 8, "SARRH": 4, "AFIB": 2}

    records = list(read_chapman(CHAPMAN))
    assert len(records) == len(texts) == 85
    assert all(isinstance(record, Record) and record.leads == LEADS and record.sampling_rate == 500 for record in records)
    task = TASKS["native"]
    labels = task.labels([record.codes for record in records]).sum(axis=0)
    assert {name: int(labels[task.classes.index(name)]) for name in codes} == counted
    assert read_record(records[0].path)[0].shape == (5000, 12)


def test_the_figshare_form_becomes_a_data_set(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["FileName,Rhythm,Beat,PatientAge,Gender"]
    for number, rhythm in enumerate(("SB", "AF", "SR")):
        eight = np.round(300 * rng.normal(size=(5000, 8)))
        microvolts = np.round(select_leads(eight, INDEPENDENT_LEADS, LEADS))
        folder = tmp_path / "figshare" / "ECGData"
        folder.mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / f"M{number}.csv", microvolts, "%g", ",", header=",".join(LEADS), comments="")
        rows.append(f"M{number},{rhythm},NONE,60,MALE")
    (tmp_path / "figshare" / "Diagnostics.csv").write_text("\n".join(rows) + "\n")
    manifest = prepare("chapman", tmp_path / "figshare", tmp_path / "out", rate=500, workers=1)
    assert (manifest.records, manifest.rejected) == (3, 0)
    stored = {record.id: record for split in SPLITS for record in read_records(tmp_path / "out", split)}
    np.testing.assert_allclose(stored["chapman/ECGData/M2"].signal, microvolts / 1000, atol=1e-4)
    assert stored["chapman/ECGData/M1"].codes == ("164890007",)  # Chapman's AF is atrial flutter
