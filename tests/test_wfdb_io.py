import os
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgtf.ecg import LEADS
from ecgtf.wfdb_io import read_header, read_record, write_record

DATA = Path(__file__).parents[2] / "shared" / "data"


def random_signal(samples=200, leads=12, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (samples, leads)).astype(np.float32)


def put(folder, header, digital=(), name="a", signal_file="a.dat", head=b""):
    """A record of which every byte is given."""
    (folder / f"{name}.hea").write_text(header)
    (folder / signal_file).write_bytes(head + np.asarray(digital, "<i2").tobytes())
    return folder / name


def refuse(path, match):
    with pytest.raises(ValueError, match=match) as caught:
        read_record(path)
    assert len(str(caught.value).splitlines()) == 1


class TestWriting:
    def test_a_record_comes_back_within_half_a_microvolt(self, tmp_path):
        signal = random_signal()
        path = write_record(tmp_path / "new" / "folder", "ecg-1", signal, LEADS, 500, ["Age: 61", "Dx: 426783006"])
        assert path == tmp_path / "new" / "folder" / "ecg-1"
        back, leads, rate = read_record(path)
        assert (leads, rate, back.dtype) == (LEADS, 500.0, np.float32)
        np.testing.assert_allclose(back, signal, atol=0.501e-3)
        assert read_header(path).comments == ("Age: 61", "Dx: 426783006")
        assert sorted(file.name for file in path.parent.iterdir()) == ["ecg-1.dat", "ecg-1.hea"]

    def test_wfdb_reads_the_same(self, tmp_path):
        signal = random_signal()
        signal[3:5, 2] = np.nan
        path = write_record(tmp_path, "ecg", signal, LEADS, 102.4, ["Age: 61"])
        theirs, fields = wfdb.rdsamp(str(path))
        ours = read_record(path)[0]
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        assert np.isnan(ours).sum() == 2
        assert (fields["fs"], fields["sig_name"], fields["units"]) == (102.4, list(LEADS), ["mV"] * 12)
        assert fields["comments"] == ["Age: 61"]
        header = wfdb.rdheader(str(path))
        assert header.checksum == wfdb.rdrecord(str(path), physical=False).calc_checksum()
        assert header.init_value == wfdb.rdrecord(str(path), physical=False).d_signal[0].tolist()

    def test_equal_records_give_equal_bytes_and_a_new_one_replaces_the_old(self, tmp_path):
        write_record(tmp_path, "a", random_signal(seed=1))
        write_record(tmp_path, "a", random_signal(seed=0))
        write_record(tmp_path / "other", "a", random_signal(seed=0))
        for name in ("a.dat", "a.hea"):
            assert (tmp_path / name).read_bytes() == (tmp_path / "other" / name).read_bytes()

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"signal": np.full((5, 12), 32.8)}, r"at most 32\.767 mV"),
            ({"signal": np.full((5, 12), np.inf)}, r"at most 32\.767 mV"),
            ({"signal": np.zeros((5, 11))}, r"expected a signal \(time, 12\)"),
            ({"signal": np.zeros((0, 12))}, r"expected a signal \(time, 12\)"),
            ({"name": "../a"}, "record name"),
            ({"name": ""}, "record name"),
            ({"rate": 0}, "sampling rate above 0"),
            ({"rate": float("nan")}, "sampling rate above 0"),
            ({"comments": ["Dx: 1\nb.dat 16"]}, "one line of text"),
        ],
    )
    def test_what_no_record_can_hold_is_refused_and_leaves_nothing(self, tmp_path, changes, match):
        arguments = {"name": "a", "signal": np.zeros((5, 12)), "rate": 500, "comments": []} | changes
        with pytest.raises(ValueError, match=match):
            write_record(tmp_path, arguments["name"], arguments["signal"], LEADS, arguments["rate"], arguments["comments"])
        assert list(tmp_path.iterdir()) == []


class TestReading:
    def test_gain_baseline_units_and_missing_samples(self, tmp_path):
        lines = [
            "a 4 250 3",
            "a.dat 16 200(10)/mV 12 5 0 0 0 avr",
            "a.dat 16 0.4/uV 16 5 0 0 0 ii",
            "a.dat 16",
            "a.dat 16 0/mV 16 0 0 0 0 Resp x",
        ]
        path = put(tmp_path, "\n".join(lines), [[10, 5, 0, 200], [210, 405, 100, 0], [-32768, -395, 0, 0]])
        signal, leads, rate = read_record(path)
        assert leads == ("aVR", "II", "", "Resp x")
        assert rate == 250.0
        expected = [
            [0, 0, 0, 1],
            [1, 1, 0.5, 0],
            [np.nan, -1, 0, 0],
        ]  # no gain, or 0, means 200; no baseline means the ADC zero
        np.testing.assert_allclose(signal, expected, atol=1e-6)

    @pytest.mark.parametrize(("units", "factor"), [("V", 1000), ("mV", 1), ("MV", 1), ("uV", 1e-3), ("µV", 1e-3), ("nV", 1e-6)])
    def test_voltages_become_millivolts(self, tmp_path, units, factor):
        path = put(tmp_path, f"a 1 100 2\na.dat 16 10/{units} 16 0 0 0 0 I\n", [10, -20])
        np.testing.assert_allclose(read_record(path)[0][:, 0], np.array([1, -2]) * factor, rtol=1e-6)

    def test_the_matlab_files_of_the_challenges_and_their_record_line(self, tmp_path):
        lines = (
            "E00001.mat 2 500 2\na.mat 16+24 1000/mV 16 0 1 3 0 I\na.mat 16x1+24 1000/mV 16 0 2 6 0 II\n# Age: 7\n#Dx: 1,2\n"
        )
        path = put(tmp_path, lines, [[1, 2], [3, 4]], signal_file="a.mat", head=b"x" * 24)
        np.testing.assert_allclose(read_record(path)[0], [[0.001, 0.002], [0.003, 0.004]])
        assert read_header(path).comments == ("Age: 7", "Dx: 1,2")

    def test_times_byte_order_marks_blank_lines_and_other_record_lines(self, tmp_path):
        path = put(
            tmp_path, "\ufeff# made by hand\n\n a 1 360/9.5(2) 2 12:00:00 05-Feb-2020 \r\n\n a.dat 16 1000 \n", [1, 2, 3]
        )
        header = read_header(path)
        assert (header.rate, header.samples, header.comments) == (360.0, 2, ("made by hand",))
        assert read_record(path)[0].shape == (2, 1)
        path = put(tmp_path, "a 1\na.dat 16 1000/mV\n", [1, 2, 3])
        signal, _, rate = read_record(path)  # without a length, the file decides; without a rate, 250
        assert (len(signal), rate) == (3, 250.0)

    def test_a_record_is_named_with_or_without_suffix_and_may_have_dots(self, tmp_path):
        put(tmp_path, "a.b 1 100 1\na.dat 16 1000/mV\n", [5], name="a.b")
        for name in ("a.b", "a.b.hea"):
            assert read_record(tmp_path / name)[0] == np.float32(0.005)

    def test_other_formats_go_through_wfdb(self, tmp_path):
        signal = np.round(random_signal(leads=2).clip(-4, 4) * 200) / 200
        for format_ in ("212", "24", "32", "80"):
            gain = 200 if format_ != "80" else 20
            wfdb.wrsamp(
                "x", 360, ["mV", "mV"], ["II", "V1"], p_signal=np.round(signal * gain) / gain, fmt=[format_] * 2,
                adc_gain=[gain, gain], baseline=[0, 0], write_dir=str(tmp_path),
            )  # fmt: skip
            ours, leads, rate = read_record(tmp_path / "x")
            np.testing.assert_allclose(ours, wfdb.rdsamp(str(tmp_path / "x"))[0], atol=1e-6)
            np.testing.assert_allclose(ours, np.round(signal * gain) / gain, atol=1e-6)
            assert (leads, rate) == (("II", "V1"), 360.0)

    def test_a_record_over_several_files_and_in_microvolts_through_wfdb(self, tmp_path):
        (tmp_path / "b.dat").write_bytes(np.array([7, 8], "<i2").tobytes())
        path = put(tmp_path, "a 2 100 2\na.dat 16 1/uV 16 0 0 0 0 I\nb.dat 16 1000/mV 16 0 0 0 0 II\n", [5, 6])
        np.testing.assert_allclose(read_record(path)[0], [[0.005, 0.007], [0.006, 0.008]], atol=1e-9)


class TestFaults:
    LINE = "a.dat 16 1000/mV 16 0 0 0 0 I\n"

    @pytest.mark.parametrize(
        ("header", "match"),
        [
            ("", "no record line"),
            ("# only a comment\n", "no record line"),
            ("a\n", "expected a record line"),
            ("a x 500 2\n", "expected a record line"),
            ("a 0 500 2\n", "no signals"),
            ("a 2 500 2\n" + LINE, "expected 2 signal lines, found 1"),
            ("a 99999999999999999 500 2\n" + LINE, "expected 99999999999999999 signal lines"),
            ("a/3 1 500 2\n" + LINE, "multi-segment"),
            ("a 1 0 2\n" + LINE, "sampling rate above 0"),
            ("a 1 -500 2\n" + LINE, "sampling rate above 0"),
            ("a 1 1e999 2\n" + LINE, "sampling rate above 0"),
            ("a 1 500 two\n" + LINE, "expected a number of samples"),
            ("a 1 500 2\na.dat\n", "expected a signal line"),
            ("a 1 500 2\na.dat sixteen 1000/mV\n", "expected a signal line"),
            ("a 1 500 2\na.dat 16 full/mV\n", "expected a signal line"),
            ("a 1 500 2\na.dat 16 1e300/mV\n", "no gain of an ECG"),
            ("a 1 500 2\na.dat 16 1000/mV 16 x 0 0 0 I\n", "expected whole numbers"),
            ("a 1 500 2\na.dat 16 1000/mmHg 16 0 0 0 0 I\n", "expected V, mV, uV or nV"),
            ("a 1 500 2\nmissing.dat 16 1000/mV 16 0 0 0 0 I\n", "'missing.dat' is missing"),
            ("a 1 500 2\n~ 16 1000/mV 16 0 0 0 0 I\n", "no file"),
            ("a 1 500 2\n. 16 1000/mV 16 0 0 0 0 I\n", "no plain file"),
            ("a 1 500 2\na.dat 999 1000/mV 16 0 0 0 0 I\n", "unknown signal format '999'"),
            ("a 1 500 2\na.dat 516 1000/mV 16 0 0 0 0 I\n", "wfdb cannot read it"),
            ("a 1 500 999999999999\na.dat 516 1000/mV 16 0 0 0 0 I\n", "more than are read at once"),
            ("a 1 500 5\n" + LINE, "'a.dat' is truncated: expected 10 bytes, found 4"),
            ("a 1 500 999999999999999999\n" + LINE, "'a.dat' is truncated"),
            ("a 1 500 5\na.dat 212 1000/mV 12 0 0 0 0 I\n", "'a.dat' is truncated: expected 7 bytes, found 4"),
            ("a 1 500 2\na.dat 16+24 1000/mV 16 0 0 0 0 I\n", "'a.dat' is truncated: expected 28 bytes, found 4"),
            ("a 1 500\na.dat 16+24 1000/mV 16 0 0 0 0 I\n", "no samples"),
        ],
    )
    def test_one_clear_line_each(self, tmp_path, header, match):
        refuse(put(tmp_path, header, [1, 2]), match)

    def test_no_header_binary_headers_and_endless_headers(self, tmp_path):
        refuse(tmp_path / "nothing", "no such header file")
        (tmp_path / "b.hea").write_bytes(bytes(range(256)) * 3)
        refuse(tmp_path / "b", "expected a")
        (tmp_path / "c.hea").write_bytes(b"#" * (2**20 + 1))
        refuse(tmp_path / "c", "no WFDB header")

    def test_signal_files_outside_the_folder_are_refused(self, tmp_path):
        inside = tmp_path / "in"
        inside.mkdir()
        (tmp_path / "secret.dat").write_bytes(bytes(4))
        os.symlink(tmp_path / "secret.dat", inside / "link.dat")
        os.symlink(tmp_path, inside / "folder")
        for name in ("../secret.dat", str(tmp_path / "secret.dat"), "link.dat", "folder/secret.dat", ".."):
            for format_ in ("16", "212"):
                refuse(
                    put(inside, f"a 1 500 2\n{name} {format_} 1000/mV 16 0 0 0 0 I\n", [1, 2]), "outside the record's folder"
                )

    def test_links_and_subfolders_that_stay_inside_are_fine(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "s.dat").write_bytes(np.array([1, 2], "<i2").tobytes())
        os.symlink("sub/s.dat", tmp_path / "link.dat")
        for name in ("sub/s.dat", "link.dat"):
            assert len(read_record(put(tmp_path, f"a 1 500 2\n{name} 16 1000/mV 16 0 0 0 0 I\n", [1, 2]))[0]) == 2

    def test_a_pipe_in_place_of_a_file_does_not_hang(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.dat")
        refuse(put(tmp_path, "a 1 500 2\npipe.dat 16 1000/mV 16 0 0 0 0 I\n"), "no plain file")


@pytest.mark.skipif(not DATA.is_dir(), reason="the real records are not here")
def test_real_records_read_as_wfdb_reads_them():
    checked = 0
    for headers in (
        "ptb-xl/**/*_hr.hea",
        "ptb-xl/**/*_lr.hea",
        "chapman-shaoxing/**/*.hea",
        "cpsc2018/*.hea",
        "ludb/data/*.hea",
    ):
        for path in sorted(DATA.glob(headers))[::40]:
            ours, leads, rate = read_record(path)
            theirs, fields = wfdb.rdsamp(str(path.with_suffix("")))
            assert leads == LEADS
            assert rate == fields["fs"]
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
            checked += 1
    assert checked > 30
