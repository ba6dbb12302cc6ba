"""Mutated WFDB records: each is read right, or refused by a ValueError of one line, quickly and in little memory."""

import os
import signal
import time
import tracemalloc
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
import wfdb

from ecgtf.data_prep.prepare import prepare
from ecgtf.ecg import LEADS
from ecgtf.shards import read_records
from ecgtf.wfdb_io import read_header, read_record

CASES = 2000
COMPARED_WITH_WFDB = 7  # every seventh record that is read
SECONDS = 5.0
BYTES = 64 * 2**20


def words(text):
    return text.split()


HUGE = (*words("999999999999 999999999999999999 4294967296 2147483648 65536 1e12 18446744073709551617"), "9" * 400)
ODD = (*words("0 -1 -0 +7 nan inf -inf 1e308 1e-308 1e999 0.5 . e x ~ - / # ٣ 0x10"), "")
PATHS = (
    *words(
        "../x.dat ../../x /etc/hostname /dev/zero .. . ~ - link.dat loop.dat dangling.dat pipe.dat dir dir/../a.dat ./a.dat"
    ),
    *words("a.hea $HOME * http://127.0.0.1/x a\0.dat"),
    "n" * 300,
    "d/" * 900 + "x",
)
FORMATS = words("8 16 24 32 61 80 160 212 310 311 508 516 524 0 1 17 999 016")
LAYOUTS = (*words("x1 x0 x2 x3 x999999999 :0 :1 :5 :99 :999999999 +0 +1 +24 +999999999999 x2:1 x1:3+24"), "")
GAINS = (
    *words("0 -1000/mV 1e3/mV 1E3/mV +500/mV inf/mV nan/mV 1e-11 1e999999999 1e-400/mV 200/mmHg 1/V 1000/µV"),
    *words("1000(99999)/uV 1000(-2147483648)/mV 1000()/mV 1000(0)/"),
)


@dataclass
class Case:
    """A record before and after its mutations."""

    lines: list[list[str]]
    comments: list[str]
    data: bytes
    signal: np.ndarray
    rate: float
    file: str
    header: bytes = b""
    harmless: bool = True
    done: list[str] = field(default_factory=list)


def seed_record(rng, leads=None, samples=None, rate=None):
    """A sound record in format 16, or 16+24 as in the PhysioNet challenges."""
    matlab = rng.random() < 0.4
    leads = leads or int(rng.choice([1, 2, 3, 12]))
    samples = samples or int(rng.integers(2, 150))
    rate = rate or int(rng.choice([100, 250, 500, 1000]))
    file = "a.mat" if matlab else "a.dat"
    since_beat = (np.arange(samples) / rate + rng.random()) % 0.8
    beats = np.exp(-(((since_beat - 0.3) / 0.02) ** 2)) + 0.2 * np.exp(-(((since_beat - 0.55) / 0.06) ** 2))
    steps = np.round(1000 * beats[:, None] * rng.uniform(0.5, 1.5, leads) + rng.normal(0, 10, (samples, leads))).astype("<i2")
    values = steps / 1000.0
    if rng.random() < 0.3:
        spot = rng.integers(samples), rng.integers(leads)
        steps[spot], values[spot] = -(2**15), np.nan
    lines = [["a", str(leads), str(rate), str(samples)]]
    for column in range(leads):
        total = int(steps[:, column].sum(dtype=np.int64)) % 65536
        layout = "16+24" if matlab else "16"
        lines.append([file, layout, "1000(0)/mV", "16", "0", str(steps[0, column]), str(total), "0", LEADS[column]])
    head = np.array([20, leads, samples, 0, 4, 0], "<i4").tobytes() if matlab else b""
    return Case(lines, ["Age: 61", "Dx: 426783006,164889003"], head + steps.tobytes(), values, rate, file)


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def junk(rng, size):
    return rng.integers(0, 256, size, np.uint8).tobytes()


# Mutations of the fields, before the header is put together


def any_field(case, rng):
    line = pick(rng, case.lines)
    line[int(rng.integers(len(line)))] = pick(rng, HUGE + ODD)


def huge_count(case, rng):
    case.lines[0][int(rng.integers(1, 4))] = pick(rng, HUGE)


def wrong_count(case, rng):
    case.lines[0][int(rng.choice([1, 3]))] = str(int(rng.integers(0, 400)))


def odd_rate(case, rng):
    case.lines[0][2] = pick(
        rng, ("-500", "nan", "inf", "0", "1e3", "1e-300", "500/500(0)", "102.4", "500(0)", "٥٠٠", "1e309", ".5", "/")
    )


def swapped_fields(case, rng):
    line = pick(rng, case.lines)
    one, two = rng.integers(0, len(line), 2)
    line[one], line[two] = line[two], line[one]


def dropped_field(case, rng):
    line = pick(rng, case.lines)
    del line[int(rng.integers(len(line))) :]


def dropped_or_doubled_line(case, rng):
    at = int(rng.integers(len(case.lines)))
    if rng.random() < 0.5:
        del case.lines[at]
    else:
        case.lines.insert(at, list(case.lines[at]))


def other_path(case, rng):
    name = pick(rng, PATHS)
    for line in case.lines[1:] if rng.random() < 0.5 else [pick(rng, case.lines)]:
        line[0] = name


def other_format(case, rng):
    layout = pick(rng, FORMATS) + (pick(rng, LAYOUTS) if rng.random() < 0.5 else "")
    for line in case.lines[1:]:
        line[1:2] = [layout]


def mixed_layout(case, rng):
    pick(rng, case.lines[1:] or [["", ""]])[1:2] = [pick(rng, FORMATS) + pick(rng, LAYOUTS)]


def same_format_other_layouts(case, rng):
    for line in case.lines[1:]:
        line[1:2] = ["16" + pick(rng, LAYOUTS)]


def odd_gain(case, rng):
    pick(rng, case.lines[1:] or [["", "", ""]])[2:3] = [pick(rng, GAINS)]


def no_length(case, rng):
    del case.lines[0][3:]


def several_segments(case, rng):
    segments = int(rng.integers(1, 4))
    case.lines = [[f"a/{segments}", "1", "500", "10"]] + [[pick(rng, ("a", "b", "~", "../a")), "5"] for _ in range(segments)]


def flac_junk(case, rng):
    for line in case.lines[1:]:
        line[1:2] = [pick(rng, ("508", "516", "524"))]
    case.data = pick(rng, (b"fLaC", b"fLaC\0\0\0\x22", b"RIFF", b"")) + junk(rng, int(rng.integers(0, 300)))


def endless_field(case, rng):
    digits = pick(rng, ("1", "9", "1/", "a", "1.1", "-"))
    line = pick(rng, case.lines)
    line[int(rng.integers(len(line)))] = digits * int(rng.integers(1000, 200_000)) + pick(rng, ("", "x"))


def many_signals(case, rng):
    count = int(rng.integers(100, 60_000))
    case.lines = [["a", str(count), "500", "1"]] + [[pick(rng, ("a.dat", "a.mat")), "16"]] * count


# Mutations of the bytes


def flipped_header(case, rng):
    content = bytearray(case.header)
    for _ in range(int(rng.integers(1, 6))):
        if content:
            content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    case.header = bytes(content)


def spliced_header(case, rng):
    at = int(rng.integers(len(case.header) + 1))
    more = pick(
        rng,
        (b"\0", b"\xff\xfe", b"\n", b"\r", b" ", b"\x85", b"\xe2\x80\xa8", b"\x1c", b"#", b"/2", b"\xc3\x28", junk(rng, 20)),
    )
    case.header = case.header[:at] + more + case.header[at:]


def cut_header(case, rng):
    case.header = case.header[: int(rng.integers(len(case.header) + 1))]


def strange_header(case, rng):
    case.header = pick(
        rng, (b"", b"\n\n", junk(rng, 500), case.header.decode(errors="replace").encode("utf-16"), b"\0" * 99, case.data[:5000])
    )


def long_header(case, rng):
    case.header = pick(rng, (b"#" * 2**21, b"#\n" * 2**19, b"\n" * 2**20, b"a " * 2**19, case.header + b"#" * 2**20))


def cut_data(case, rng):
    case.data = case.data[: int(rng.integers(len(case.data) + 1))]


def no_data(case, rng):
    case.data = b""


# Mutations that must not change what is read


def flipped_comments(case, rng):
    case.comments = [junk(rng, 40).decode("latin-1").replace("\n", "").replace("\r", "") for _ in range(3)]


def long_comments(case, rng):
    case.comments.append("x" * int(rng.integers(1000, 500_000)))


def other_record_name(case, rng):
    case.lines[0][0] = pick(rng, ("b", "E1.mat", "ä", "a\0", "..", "x" * 300))


def times_and_dates(case, rng):
    case.lines[0] += pick(rng, (["12:00:00"], ["12:00:00", "01/02/2020"], ["nonsense"], ["99:99"]))


def blank_lines(case, rng):
    case.comments = ["", *case.comments, " "]


def more_data(case, rng):
    case.data += junk(rng, int(rng.integers(1, 50)))


def wrong_checksum(case, rng):
    case.lines[-1][6] = str(int(rng.integers(-(2**15), 2**15)))


OF_FIELDS = (
    any_field,
    huge_count,
    wrong_count,
    odd_rate,
    swapped_fields,
    dropped_field,
    dropped_or_doubled_line,
    other_path,
    other_format,
    mixed_layout,
    same_format_other_layouts,
    odd_gain,
    no_length,
    several_segments,
    flac_junk,
    endless_field,
    many_signals,
)
OF_BYTES = (flipped_header, spliced_header, cut_header, strange_header, long_header, cut_data, no_data)
HARMLESS = (flipped_comments, long_comments, other_record_name, times_and_dates, blank_lines, more_data, wrong_checksum)
RARE = {endless_field: 0.3, many_signals: 0.1, long_header: 0.2}  # they take long


def mutated(rng, **seed):
    """A case with one to three mutations, or with harmless ones only."""
    case = seed_record(rng, **seed)
    harmless = rng.random() < 0.2
    chosen = []
    while len(chosen) < 1 + (rng.random() < 0.3):
        mutation = pick(rng, HARMLESS if harmless else OF_FIELDS + OF_BYTES)
        if rng.random() < RARE.get(mutation, 1):
            chosen.append(mutation)
    for mutation in chosen:
        if mutation not in OF_BYTES:
            with suppress(IndexError, ValueError):  # an earlier mutation took what this one changes
                mutation(case, rng)
    ending = pick(rng, ("\n", "\r\n")) if harmless else "\n"
    lines = [" ".join(line) for line in case.lines]
    comments = [f"#{comment}" for comment in case.comments]
    text = comments + lines if harmless and rng.random() < 0.3 else lines + comments
    case.header = (pick(rng, ("", "\ufeff")) * harmless + ending.join(text) + ending).encode()
    for mutation in chosen:
        if mutation in OF_BYTES:
            mutation(case, rng)
    case.harmless, case.done = harmless, [mutation.__name__ for mutation in chosen]
    return case


@pytest.fixture
def folder(tmp_path):
    """A folder with the traps that `PATHS` lead into."""
    inside = tmp_path / "one" / "two"
    (inside / "dir").mkdir(parents=True)
    (tmp_path / "x").write_bytes(bytes(20_000))
    (tmp_path / "one" / "x.dat").write_bytes(bytes(20_000))
    os.symlink(tmp_path / "x", inside / "link.dat")
    os.symlink("loop.dat", inside / "loop.dat")
    os.symlink("nowhere", inside / "dangling.dat")
    os.mkfifo(inside / "pipe.dat")
    return inside


@contextmanager
def traced():
    """Memory is measured in here."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@contextmanager
def bounded(what):
    """Fails what takes too long or too much memory."""

    def interrupt(*_):
        raise TimeoutError(what)

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert time.monotonic() - start < SECONDS, what
    peak = tracemalloc.get_traced_memory()[1] - before
    assert peak < BYTES, f"{what}: {peak} bytes"


def read_or_refuse(path, what):
    """What `read_record` returns, or None when it refuses the record as it should."""
    with bounded(what):
        try:
            return read_record(path)
        except ValueError as error:
            message = str(error)
    assert len(message.splitlines()) == 1, what
    assert len(message) < 5000, what
    assert message.startswith(path.name), message
    return None


def check_values(path, result):
    """The result has the form that is promised, and the values that the bytes of a plain record stand for."""
    values, leads, rate = result
    header = read_header(path)
    assert values.dtype == np.float32
    assert values.ndim == 2
    assert values.shape[1] == len(leads) == len(header.channels)
    assert len(values) == (header.samples or len(values)) > 0
    assert 0 < rate < float("inf")
    assert not np.isinf(values).any()
    layouts = {(channel.file, channel.format, channel.samples_per_frame, channel.skew) for channel in header.channels}
    first = header.channels[0]
    if len(layouts) == 1 and (first.format, first.samples_per_frame, first.skew) == ("16", 1, 0):
        content = (path.parent / first.file).read_bytes()[first.byte_offset :]
        steps = np.frombuffer(content[: 2 * values.size], "<i2").reshape(values.shape).astype(float)
        steps[steps == -(2**15)] = np.nan
        for column, channel in enumerate(header.channels):
            factor = {"v": 1e-3, "mv": 1, "uv": 1e3, "µv": 1e3, "nv": 1e6}[channel.units.lower()]
            expected = (steps[:, column] - channel.baseline) / channel.gain / factor
            np.testing.assert_allclose(values[:, column], expected, rtol=1e-6)


def compare_with_wfdb(path, result):
    """Where wfdb understands the header as we do, its values are ours. Returns whether it could be compared."""
    header = read_header(path)
    if any(channel.samples_per_frame > 1 or channel.skew for channel in header.channels):
        return False  # it rounds means, and takes any amount of memory for a skew
    try:
        theirs = wfdb.rdrecord(str(path.with_suffix("")), m2s=False, return_res=64)
        described = wfdb.rdheader(str(path.with_suffix("")))
    except Exception:  # it fails in many ways on a broken record
        return False
    ours = [
        (c.file, c.format, c.samples_per_frame, c.skew, c.byte_offset, c.gain, c.baseline, c.units) for c in header.channels
    ]
    fields = (
        described.file_name,
        described.fmt,
        described.samps_per_frame,
        described.skew,
        described.byte_offset,
        described.adc_gain,
        described.baseline,
        described.units,
    )
    seen = [tuple(value or (0 if value is None else value) for value in line) for line in zip(*fields, strict=True)]
    if seen != ours or theirs.sig_len != len(result[0]):
        return False
    factors = [{"V": 1e-3, "mV": 1, "uV": 1e3, "nV": 1e6}.get(unit) for unit in theirs.units]
    if None in factors:
        return False
    np.testing.assert_allclose(result[0], theirs.p_signal / factors, rtol=1e-6, atol=1e-9)
    return True


def put_case(folder, case, name="a"):
    """Writes the case's files; its signal file stays `a.dat` or `a.mat`."""
    path = folder / f"{name}.hea"
    path.write_bytes(case.header)
    (folder / case.file).write_bytes(case.data)
    return path


def fuzz(folder, cases, seed=0):
    """Counts of what was read, refused and compared with wfdb."""
    counts = {"read": 0, "refused": 0, "compared": 0}
    with traced():
        for number in range(cases):
            case = mutated(np.random.default_rng([seed, number]))
            what = f"case {number}: {', '.join(case.done)}"
            path = put_case(folder, case)
            try:
                result = read_or_refuse(path, what)
                if case.harmless:
                    assert result is not None
                    np.testing.assert_allclose(result[0], case.signal, atol=1e-6)
                    assert result[1:] == (LEADS[: case.signal.shape[1]], case.rate)
                if result is not None:
                    check_values(path, result)
                    if counts["read"] % COMPARED_WITH_WFDB == 0:
                        counts["compared"] += compare_with_wfdb(path, result)
            except Exception as error:
                error.add_note(what)
                raise
            counts["read" if result is not None else "refused"] += 1
    return counts


def test_what_is_read_is_right_and_all_else_is_refused(folder):
    counts = fuzz(folder, CASES)
    assert counts["read"] > CASES / 4
    assert counts["refused"] > CASES / 4
    assert counts["compared"] > CASES / 50


def test_a_folder_of_mutated_records_is_prepared(tmp_path, folder):
    rng = np.random.default_rng(1)
    harmless = {}
    for number in range(300):
        case = mutated(rng, leads=int(rng.choice([2, 12])), samples=200, rate=100)
        below = folder / f"r{number:03d}"
        below.mkdir()
        harmless[below.name] = case.signal if case.harmless else None
        put_case(below, case, pick(rng, ("a", "b c", "ü", "a\nb", os.fsdecode(b"a\xff"))))
    out = tmp_path / "out"
    manifest = prepare("wfdb", folder, out, rate=100, seconds=1, leads=("I", "II"), workers=1)
    kept = [record for split in manifest.splits for record in read_records(out, split, manifest)]
    assert len(kept) + manifest.rejected == 300
    assert min(len(kept), manifest.rejected) > 40
    assert len({record.id for record in kept}) == len(kept)
    for record in kept:
        assert record.signal.shape == (100, 2)
        assert np.isfinite(record.signal).all()
        expected = harmless[record.id.split("/")[1]]
        if expected is not None:
            np.testing.assert_allclose(record.signal, expected[:100, :2], atol=1e-6)


class TestWhatFuzzingFound:
    """One case for each fault that the mutations above have found."""

    LINE = "a.dat 16 1000/mV 16 0 0 0 0 I\n"

    @staticmethod
    def put(folder, header, data=bytes(40)):
        (folder / "a.hea").write_bytes(header.encode())
        (folder / "a.dat").write_bytes(data)
        return folder / "a.hea"

    @staticmethod
    def refuse(path, match):
        with traced(), bounded(match), pytest.raises(ValueError, match=match) as caught:
            read_record(path)
        assert len(str(caught.value).splitlines()) == 1

    def test_a_huge_skew_takes_no_memory(self, tmp_path):
        path = self.put(tmp_path, "a 1 100 4\na.dat 16:999999999 1000/mV 16 0 0 0 0 I\n")
        with traced(), bounded("skew"):
            assert np.isnan(read_record(path)[0]).all()

    def test_skews_that_differ(self, tmp_path):
        lines = ["a 3 100 4", *(f"a.dat 16:{skew} 1/mV 16 0 0 0 0 {lead}" for skew, lead in ((0, "I"), (1, "II"), (3, "V1")))]
        path = self.put(tmp_path, "\n".join(lines), np.arange(12, dtype="<i2").tobytes())
        nan = np.nan
        np.testing.assert_array_equal(read_record(path)[0], [[0, 4, 11], [3, 7, nan], [6, 10, nan], [9, nan, nan]])

    def test_a_missing_sample_of_a_frame_makes_the_frame_missing(self, tmp_path):
        path = self.put(tmp_path, "a 1 100 2\na.dat 16x2 1/mV\n", np.array([1, 2, -(2**15), 4], "<i2").tobytes())
        np.testing.assert_array_equal(read_record(path)[0][:, 0], [1.5, np.nan])

    def test_a_skew_over_frames_of_several_samples_leaves_missing_samples(self, tmp_path):
        path = self.put(tmp_path, "a 1 100 2\na.dat 16x2:1 1/mV\n", np.array([1, 2, 3, 4], "<i2").tobytes())
        np.testing.assert_array_equal(read_record(path)[0][:, 0], [3.5, np.nan])

    def test_a_flac_header_may_not_claim_what_its_file_cannot_hold(self, tmp_path):
        self.refuse(self.put(tmp_path, "a 1 100 99999999\na.dat 516 1000/mV\n", b"fLaC" + bytes(20)), "at once or fit in")

    @pytest.mark.parametrize("lines", ["a.dat 16\na.dat 212\n", "a.dat 212\na.dat 212+3\n"])
    def test_a_file_has_one_layout(self, tmp_path, lines):
        self.refuse(self.put(tmp_path, "a 2 100 4\n" + lines), "differ in format or byte offset")

    def test_no_samples_in_a_frame(self, tmp_path):
        self.refuse(self.put(tmp_path, "a 1 100 4\na.dat 16x0 1000/mV\n"), "no samples in a frame")

    @pytest.mark.parametrize("gain", ["500", "+500", "500.0", "5e2"])
    def test_gains_in_other_formats(self, tmp_path, gain):
        path = self.put(tmp_path, f"a 1 100 4\na.dat 61 {gain}/mV 16 0 0 0 0 I\n", np.array([500] * 4, ">i2").tobytes())
        np.testing.assert_array_equal(read_record(path)[0], np.ones((4, 1)))

    def test_a_gain_that_wfdb_takes_for_another(self, tmp_path):
        self.refuse(self.put(tmp_path, "a 1 100 4\na.dat 61 5E2/mV 16 0 0 0 0 I\n"), "wfdb reads the header differently")

    @pytest.mark.parametrize(
        "header",
        [
            "a 1 1e3 4\na.dat 61 1000/mV\n",
            "a 1 100 4\na.dat 61x1:0+0 1/mV 16 0 0 0 0 I\na.dat 61x1:0+0 1/mV 16 0 0 0 0 II\n",
        ],
    )
    def test_rates_and_counts_that_wfdb_takes_for_others(self, tmp_path, header):
        self.refuse(self.put(tmp_path, header), "wfdb reads the header differently|wfdb cannot read it")

    @pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
    def test_only_line_feeds_and_carriage_returns_part_lines(self, tmp_path, separator):
        path = self.put(tmp_path, f"# one{separator}two\na 1 100 4\n{self.LINE}")
        assert read_header(path).comments == (f"one{separator}two",)
        assert read_record(path)[0].shape == (4, 1)

    @pytest.mark.parametrize("lines", ["a 1 {} 4\n" + LINE, "a 1 100 4\na.dat 16 {}/mV\n"])
    def test_endless_numbers_do_not_hang(self, tmp_path, lines):
        self.refuse(self.put(tmp_path, lines.format("1" * 900_000 + "x")), "more than 1000 characters")

    def test_endless_lists_of_signals(self, tmp_path):
        header = "a 60000 100 1\n" + "a.dat 16\n" * 60_000
        self.refuse(self.put(tmp_path, header), "60000 signals; expected at most 1000")

    def test_loops_of_links(self, tmp_path):
        os.symlink("b.dat", tmp_path / "b.dat")
        self.refuse(self.put(tmp_path, f"a 1 100 4\n{self.LINE.replace('a.dat', 'b.dat')}"), "'b.dat' is missing")
        os.symlink("c.hea", tmp_path / "c.hea")
        self.refuse(tmp_path / "c", "no such header file")

    def test_a_pipe_in_place_of_a_header_does_not_hang(self, tmp_path):
        os.mkfifo(tmp_path / "a.hea")
        self.refuse(tmp_path / "a", "no such header file")

    @pytest.mark.parametrize("name", [b"a\nb", b"a\xffb", b"a\x1bb"])
    def test_messages_stay_printable_whatever_the_file_is_called(self, tmp_path, name):
        path = tmp_path / os.fsdecode(name + b".hea")
        for content in (None, b"", b"a 1 100 4\nb.dat 16\n", b"a 1 100 4\nb.dat 61\n"):
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(ValueError, match=r"no such header|no record line|'b\.dat' is missing") as caught:
                read_record(path)
            assert str(caught.value).isprintable()
