"""WFDB records, read fast and written whole: header files `.hea` beside signal files `.dat` or `.mat`.

Nearly every public collection of 12-lead ECGs stores 16-bit samples, in `.dat` files (format 16) or behind the 24-byte head of
a MATLAB v4 matrix (`16+24`). Those are read here with one NumPy call; `wfdb` takes some 15 times as long, most of it in its
header parser. Every other format goes through `wfdb.rdrecord`. The format: "WFDB Applications Guide", header(5) and signal(5),
https://physionet.org/physiotools/wag/header-5.htm.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ecgtf.atomic import write_atomically
from ecgtf.ecg import LEADS, canonical_lead

DEFAULT_GAIN = 200.0
"""Digital units per physical unit where a header gives none, or 0 (header(5))."""

_INVALID = -(2**15)  # the digital value of a missing sample in format 16
_STEPS_PER_MV = 1000.0  # what `write_record` writes: one step is 1 microvolt
_PER_MV = {"v": 1e-3, "mv": 1.0, "uv": 1e3, "µv": 1e3, "μv": 1e3, "nv": 1e6}  # so many units make a millivolt
_MAX_HEADER_BYTES = 2**20
_MAX_LINE = 1000  # characters; comments may be longer
_MAX_SIGNALS = 1000
_MAX_COMPRESSED_VALUES = 2**28  # FLAC files tell nothing of their length, so their headers must not ask for more than 1 GiB
_MAX_COMPRESSION = 2**15  # values a byte; more than FLAC reaches: 8 channels of its largest block take 40 bytes and more
_BYTES_PER_SAMPLE = {"8": 1, "16": 2, "24": 3, "32": 4, "61": 2, "80": 1, "160": 2, "212": 1.5, "310": 4 / 3, "311": 4 / 3}
_COMPRESSED = {"508", "516", "524"}

# \d+(?:\.\d*)? and not \d+\.?\d*, which takes quadratic time on many digits
_RATE = re.compile(r"(\d+(?:\.\d*)?(?:e[-+]?\d+)?)(?:/.*)?", re.IGNORECASE)
_FORMAT = re.compile(r"(\d{1,3})(?:x(\d{1,9}))?(?::(\d{1,9}))?(?:\+(\d{1,18}))?")
_GAIN = re.compile(r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)(?:\((-?\d{1,10})\))?(?:/(\S+))?", re.IGNORECASE)
_NAME = re.compile(r"[-\w]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Channel:
    """One signal line of a header: where the samples lie and what they mean."""

    file: str
    format: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    """Digital units per physical unit."""
    baseline: int
    """The digital value of 0 physical units."""
    units: str
    name: str


@dataclass(frozen=True, slots=True)
class Header:
    """A WFDB header; `leads` are its channel names, in the standard spelling where they are standard leads."""

    path: Path
    """The header file."""
    rate: float
    """Frames per second; the samples per second of a channel with one sample a frame."""
    samples: int | None
    """Samples per channel; None where the header leaves it to the length of the signal file."""
    channels: tuple[Channel, ...]
    comments: tuple[str, ...]
    """The comment lines without their `#`."""

    @property
    def leads(self) -> tuple[str, ...]:
        """Channel names: `avr` -> `aVR`; names that are no standard lead stay as they are."""
        return tuple(_standard_name(channel.name) for channel in self.channels)


def header_path(path: str | Path) -> Path:
    """The header file of a record named with or without `.hea`."""
    path = Path(path)
    return path if path.suffix == ".hea" else path.with_name(path.name + ".hea")


def read_header(path: str | Path) -> Header:
    """The header of the record `path` (with or without `.hea`).

    The name on the record line is not looked at, so that `E00001.mat 12 500 5000`, which `wfdb` refuses, is read too.

    Raises:
        ValueError: if the header is missing, malformed, of a multi-segment record, or names a signal file outside its folder.
    """
    path = header_path(path)
    name = _shown(path)
    if not os.path.isfile(path):  # a pipe is none either; opening it would wait for ever
        raise ValueError(f"{name}: no such header file in {str(path.parent)!r}")
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_HEADER_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror})") from error
    if len(content) > _MAX_HEADER_BYTES:
        raise ValueError(f"{name}: a header of more than {_MAX_HEADER_BYTES} bytes is no WFDB header")
    lines, comments = [], []
    for line in content.decode("utf-8-sig", errors="replace").replace("\r", "\n").split("\n"):  # not at form feeds, NEL ...
        line = line.strip()
        if line.startswith("#"):
            comments.append(line.lstrip("#").strip())
        elif line:
            lines.append(line)
    if not lines:
        raise ValueError(f"{name}: the header has no record line")
    if max(map(len, lines)) > _MAX_LINE:
        raise ValueError(f"{name}: a line of more than {_MAX_LINE} characters that is no comment")
    count, rate, samples = _parse_record_line(name, lines[0])
    if len(lines) - 1 < count:
        raise ValueError(f"{name}: expected {count} signal lines, found {len(lines) - 1}")
    if count > _MAX_SIGNALS:
        raise ValueError(f"{name}: {count} signals; expected at most {_MAX_SIGNALS}")
    channels = tuple(_parse_signal_line(name, line) for line in lines[1 : count + 1])
    return Header(path, rate, samples, channels, tuple(comments))


def read_record(path: str | Path) -> tuple[np.ndarray, tuple[str, ...], float]:
    """The record `path` (with or without `.hea`): `(signal, leads, rate)`.

    `signal` is `(time, leads)` float32 in millivolts with NaN for missing samples, `leads` as `Header.leads`, `rate` in Hz.
    Like `wfdb`, it does not look at the header's checksums.

    Raises:
        ValueError: in one line, for every fault of the header (see `read_header`), a missing or truncated signal file, a unit
            that is no voltage, an empty record.
    """
    header = read_header(path)
    name = _shown(header.path)
    per_mv = [_PER_MV.get(channel.units.lower()) for channel in header.channels]
    for channel, factor in zip(header.channels, per_mv, strict=True):
        if factor is None:
            raise ValueError(f"{name}: lead {channel.name!r} is in {channel.units!r}; expected V, mV, uV or nV")
    first = header.channels[0]
    layouts = {(c.file, c.format, c.samples_per_frame, c.skew, c.byte_offset) for c in header.channels}
    if len(layouts) > 1 or (first.format, first.samples_per_frame, first.skew) != ("16", 1, 0):
        return _read_with_wfdb(header, np.array(per_mv)), header.leads, header.rate

    file, size = _signal_file(header, first.file)
    frame = 2 * len(header.channels)
    samples = header.samples if header.samples is not None else (size - first.byte_offset) // frame
    if samples <= 0:
        raise ValueError(f"{name}: the record holds no samples")
    _check_size(header, first.file, first.byte_offset + samples * frame, size)
    try:
        digital = np.fromfile(file, "<i2", samples * len(header.channels), offset=first.byte_offset).reshape(samples, -1)
    except OSError as error:
        raise ValueError(f"{name}: signal file {first.file!r} cannot be read ({error.strerror})") from error
    signal = digital.astype(np.float32)
    baselines = np.array([channel.baseline for channel in header.channels], np.float32)
    if baselines.any():
        signal -= baselines
    signal /= np.array([c.gain * factor for c, factor in zip(header.channels, per_mv, strict=True)], np.float32)
    if digital.min() == _INVALID:
        signal[digital == _INVALID] = np.nan
    return signal, header.leads, header.rate


def write_record(
    folder: str | Path,
    name: str,
    signal: np.ndarray,
    leads: Sequence[str] = LEADS,
    rate: float = 500.0,
    comments: Sequence[str] = (),
) -> Path:
    """Writes `signal` `(time, leads)` in millivolts as the WFDB record `folder/name` in format 16, 1 microvolt a step.

    NaN becomes the format's missing sample. The signal file appears first and the header last, both under temporary names
    before, so that a record with a header is whole.

    Returns:
        The record's path without suffix.

    Raises:
        ValueError: for a signal of another shape or beyond 32.767 mV, and for a name or comment that no header can hold.
    """
    folder, leads = Path(folder), tuple(leads)
    signal = np.asarray(signal)
    if signal.ndim != 2 or signal.shape[1] != len(leads) or 0 in signal.shape:
        raise ValueError(f"expected a signal (time, {len(leads)}) for leads {', '.join(leads)}, received shape {signal.shape}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"record name {name!r} must consist of letters, digits, '_' and '-'")
    if not rate > 0 or not math.isfinite(rate):
        raise ValueError(f"expected a sampling rate above 0 Hz, received {rate}")
    for text in (*leads, *comments):
        if not text.strip() or len(text.splitlines()) != 1:
            raise ValueError(f"expected one line of text in a lead name or comment, received {text!r}")
    missing = np.isnan(signal)
    steps = np.rint(np.where(missing, 0.0, signal) * _STEPS_PER_MV)
    if np.abs(steps).max() > 2**15 - 1:
        peak = np.nanmax(np.abs(signal))
        raise ValueError(f"expected at most 32.767 mV (format 16, 1 microvolt a step), received {peak:.4g} mV")
    digital = np.where(missing, _INVALID, steps).astype("<i2")

    rate_text = str(int(rate)) if float(rate).is_integer() else repr(float(rate))
    lines = [f"{name} {len(leads)} {rate_text} {len(digital)}"]
    sums = digital.sum(axis=0, dtype=np.int64) % 65536
    for lead, initial, total in zip(leads, digital[0], sums, strict=True):
        lines.append(f"{name}.dat 16 {_STEPS_PER_MV:.0f}(0)/mV 16 0 {initial} {total} 0 {lead.strip()}")
    lines += [f"#{comment.strip()}" for comment in comments]

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    header_path(path).unlink(missing_ok=True)  # an old header must not stand beside the new signal, not even for a moment
    write_atomically(folder / f"{name}.dat", digital.tobytes())
    write_atomically(header_path(path), "\n".join(lines) + "\n")
    return path


@lru_cache(maxsize=1024)
def _standard_name(name: str) -> str:
    try:
        return canonical_lead(name)
    except ValueError:
        return name


def _parse_record_line(file: str, line: str) -> tuple[int, float, int | None]:
    """`(signals, rate, samples or None)` of a record line; time and date, in whatever form, are left alone."""
    fields = line.split()
    if re.search(r"/\d+$", fields[0]):
        raise ValueError(f"{file}: a multi-segment record; expected a record of one segment")
    if len(fields) < 2 or not _is_count(fields[1]):
        raise ValueError(f"{file}: expected a record line 'NAME SIGNALS RATE SAMPLES', found {line[:80]!r}")
    count = int(fields[1])
    rate, samples = 250.0, None  # header(5): the rate is 250 unless given
    if len(fields) > 2:
        match = _RATE.fullmatch(fields[2])
        rate = float(match[1]) if match else 0.0
    if not 0 < rate < math.inf:
        raise ValueError(f"{file}: expected a sampling rate above 0 Hz, found {fields[2]!r}")
    if len(fields) > 3:
        if not _is_count(fields[3]):
            raise ValueError(f"{file}: expected a number of samples, found {fields[3]!r}")
        samples = int(fields[3]) or None  # 0 stands for "not stated"
    if count == 0:
        raise ValueError(f"{file}: the record has no signals")
    return count, rate, samples


def _parse_signal_line(file: str, line: str) -> Channel:
    fields = line.split(maxsplit=8)
    layout = _parse_layout(fields[1]) if len(fields) > 1 else None
    scale = _parse_gain(fields[2] if len(fields) > 2 else "0")
    if layout is None or scale is None:
        raise ValueError(f"{file}: expected a signal line 'FILE FORMAT GAIN(BASELINE)/UNITS ...', found {line[:80]!r}")
    gain, baseline, units = scale
    if not 1e-12 < abs(gain) < 1e12:
        raise ValueError(f"{file}: a gain of {fields[2]!r} is no gain of an ECG")
    try:  # resolution, zero, initial value, checksum, block size
        numbers = [int(field[:20]) for field in fields[3:8]]
    except ValueError:
        raise ValueError(f"{file}: expected whole numbers after the gain in the signal line {line[:80]!r}") from None
    if baseline is None:
        baseline = numbers[1] if len(numbers) > 1 else 0
    name = fields[8].strip() if len(fields) > 8 else ""
    return Channel(fields[0], *layout, gain, baseline, units, name)


@lru_cache(maxsize=1024)  # a collection's headers say the same over and over
def _parse_layout(field: str) -> tuple[str, int, int, int] | None:
    """`(format, samples per frame, skew, byte offset)` of a field such as `16x1:0+24`, or None."""
    match = _FORMAT.fullmatch(field)
    return (match[1], int(match[2] or 1), int(match[3] or 0), int(match[4] or 0)) if match else None


@lru_cache(maxsize=1024)
def _parse_gain(field: str) -> tuple[float, int | None, str] | None:
    """`(gain, baseline or None, units)` of a field such as `1000.0(0)/mV`, or None."""
    match = _GAIN.fullmatch(field)
    return (float(match[1]) or DEFAULT_GAIN, int(match[2]) if match[2] else None, match[3] or "mV") if match else None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _shown(path: Path) -> str:
    """The file's name as messages show it: names may hold line breaks, or bytes that are no text."""
    return path.name if path.name.isprintable() else ascii(path.name)


def _signal_file(header: Header, name: str) -> tuple[Path, int]:
    """The signal file `name` and its size in bytes, if it is a plain file within the header's folder."""
    folder, record = header.path.parent, _shown(header.path)
    file = folder / name
    if name in ("~", "-"):
        raise ValueError(f"{record}: a signal has no file ({name!r})")
    try:
        if os.sep in name or name == ".." or os.path.islink(file):
            inside = Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))
        else:
            inside = True
        status = os.stat(file) if inside else None
    except (OSError, ValueError):
        raise ValueError(f"{record}: signal file {name!r} is missing") from None
    if status is None:
        raise ValueError(f"{record}: signal file {name!r} lies outside the record's folder; refused")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{record}: {name!r} is no plain file")
    return file, status.st_size


def _check_size(header: Header, name: str, expected: int, size: int) -> None:
    if size < expected:
        raise ValueError(f"{_shown(header.path)}: signal file {name!r} is truncated: expected {expected} bytes, found {size}")


def _read_with_wfdb(header: Header, per_mv: np.ndarray) -> np.ndarray:
    """`(time, leads)` float32 mV of any other layout, after a check that the files can hold what the header says.

    Skews and frames of several samples are seen to here: `wfdb` takes as much memory as the header's skew says, fails where skews
    differ, and averages missing samples as if they were voltages.
    """
    name = _shown(header.path)
    for file in dict.fromkeys(channel.file for channel in header.channels):
        group = [channel for channel in header.channels if channel.file == file]
        path, size = _signal_file(header, file)
        if len({(channel.format, channel.byte_offset) for channel in group}) > 1:
            raise ValueError(f"{name}: the signals in {file!r} differ in format or byte offset; expected one layout a file")
        per_frame = sum(channel.samples_per_frame for channel in group)
        if not all(channel.samples_per_frame for channel in group):
            raise ValueError(f"{name}: a signal in {file!r} has no samples in a frame")
        values = per_frame * (header.samples or 0)
        if group[0].format in _COMPRESSED:
            if values > min(_MAX_COMPRESSED_VALUES, size * _MAX_COMPRESSION):
                raise ValueError(f"{name}: {values} samples in {path.name!r} are more than are read at once or fit in")
        elif group[0].format in _BYTES_PER_SAMPLE:
            _check_size(header, file, group[0].byte_offset + int(values * _BYTES_PER_SAMPLE[group[0].format]), size)
        else:
            raise ValueError(f"{name}: unknown signal format {group[0].format!r}")
    import wfdb  # costs half a second and is rarely needed

    record = str(header.path.absolute().with_suffix(""))
    try:
        theirs = wfdb.rdheader(record)
        physical = wfdb.rdrecord(record, smooth_frames=False, ignore_skew=True, m2s=False).e_p_signal
    except Exception as error:  # wfdb raises whatever its innards raise on a broken file
        why = " ".join(str(error).split())[:120]
        raise ValueError(f"{name}: wfdb cannot read it ({type(error).__name__}: {why})") from error
    offsets = [offset or 0 for offset in theirs.byte_offset]
    fields = (theirs.file_name, theirs.fmt, theirs.samps_per_frame, offsets, theirs.adc_gain, theirs.baseline)
    ours = [(c.file, c.format, c.samples_per_frame, c.byte_offset, c.gain, c.baseline) for c in header.channels]
    if list(zip(*fields, strict=True)) != ours or (theirs.sig_len or None) != header.samples:
        raise ValueError(f"{name}: wfdb reads the header differently; expected plain numbers and no extra lines")
    frames = len(physical[0]) // header.channels[0].samples_per_frame
    if frames == 0:
        raise ValueError(f"{name}: the record holds no samples")
    signal = np.full((frames, len(physical)), np.nan, np.float32)
    for column, (channel, samples) in enumerate(zip(header.channels, physical, strict=True)):
        values = samples.reshape(frames, -1).mean(axis=1)[channel.skew :]
        signal[: len(values), column] = values / per_mv[column]
    return signal
