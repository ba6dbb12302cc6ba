"""What is left of a preparation that may not begin, is killed, or finds no room, and how it goes on."""

import json
import os
import subprocess
import sys
import time

import pytest
from small_collection import collection, content, ecg

from ecgtf.data_prep.journal import check_folder, only_one
from ecgtf.data_prep.prepare import prepare
from ecgtf.dataset import read_manifest, verify
from ecgtf.wfdb_io import write_record


def is_alive(process_group):
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return False
    return True


class TestOutputFolder:
    def test_a_finished_one_is_replaced_only_when_asked(self, tmp_path):
        root, out = collection(tmp_path / "ecgs"), tmp_path / "out"
        prepare("wfdb", root, out, seconds=2, workers=1, shard_bytes=20_000)
        before = content(out)
        with pytest.raises(ValueError, match="holds a data set already"):
            prepare("wfdb", root, out, seconds=2, workers=1)
        assert content(out) == before
        with pytest.raises(ValueError, match="no record is left"):  # found out by reading signals: the old set is gone
            prepare("wfdb", root, out, seconds=9, workers=1, overwrite=True)
        prepare("wfdb", root, out, seconds=1, workers=1, overwrite=True)
        assert read_manifest(out).seconds == 1
        assert verify(out) == []

    def test_a_source_that_cannot_be_read_does_not_cost_the_old_set(self, tmp_path):
        root, out = collection(tmp_path / "ecgs"), tmp_path / "out"
        prepare("wfdb", root, out, seconds=2, workers=1)
        before = content(out)
        with pytest.raises(ValueError, match="is no folder"):
            prepare("wfdb", tmp_path / "nowhere", out, seconds=2, workers=1, overwrite=True)
        assert content(out) == before

    def test_a_folder_of_something_else_is_left_alone_even_so(self, tmp_path):
        root, out = collection(tmp_path / "ecgs"), tmp_path / "out"
        out.mkdir()
        (out / "thesis.tex").write_text("x")
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="is not empty and holds no data set"):
                prepare("wfdb", root, out, seconds=2, workers=1, overwrite=overwrite)
        assert (out / "thesis.tex").read_text() == "x"
        with pytest.raises(ValueError, match="is a file"):
            check_folder(out / "thesis.tex")

    def test_two_at_a_time(self, tmp_path):
        root, out = collection(tmp_path / "ecgs"), tmp_path / "out"
        with only_one(out), pytest.raises(ValueError, match="another process is preparing"):
            prepare("wfdb", root, out, seconds=2, workers=1)
        prepare("wfdb", root, out, seconds=2, workers=1)


class TestInterruption:
    SCRIPT = """
import sys
from ecgtf.data_prep.prepare import prepare
if __name__ == "__main__":
    prepare("wfdb", sys.argv[1], sys.argv[2], seconds=2, workers=int(sys.argv[3]), shard_bytes=10_000)
"""

    def kill_in_the_middle(self, tmp_path, root, out, workers):
        """Starts a preparation, kills it and its parentless workers' parent after the second shard, and waits for its end."""
        script = tmp_path / "script.py"
        script.write_text(self.SCRIPT)
        command = [sys.executable, str(script), str(root), str(out), str(workers)]
        process = subprocess.Popen(command, start_new_session=True)
        limit = time.monotonic() + 60
        while len(list(out.glob("*.tfrecord-?????-of-?????"))) < 2 and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.001)
        process.kill()
        process.wait()
        return process.pid

    @pytest.mark.parametrize("workers", [1, 2])
    def test_after_kill_9_nothing_looks_finished_and_going_on_gives_the_same_bytes(self, tmp_path, workers):
        root, out = collection(tmp_path / "ecgs", 300), tmp_path / "out"
        group = self.kill_in_the_middle(tmp_path, root, out, workers)
        assert not (out / "dataset.json").exists()
        with pytest.raises(ValueError, match="unfinished data set"):
            read_manifest(out)
        limit = time.monotonic() + 10
        while is_alive(group) and time.monotonic() < limit:
            time.sleep(0.05)
        assert not is_alive(group)  # the workers end with their parent

        done = json.loads((out / "prepare.json").read_text())["finished"]
        times = {name: (out / name).stat().st_mtime_ns for name in done}
        prepare("wfdb", root, out, seconds=2, workers=1, shard_bytes=10_000)
        assert {name: (out / name).stat().st_mtime_ns for name in done} == times  # finished shards are not written again
        prepare("wfdb", root, tmp_path / "at once", seconds=2, workers=1, shard_bytes=10_000)
        assert content(out) == content(tmp_path / "at once")

    def test_other_settings_or_records_are_not_mixed_in(self, tmp_path):
        root, out = collection(tmp_path / "ecgs", 300), tmp_path / "out"
        self.kill_in_the_middle(tmp_path, root, out, 1)
        with pytest.raises(ValueError, match=r"unfinished preparation of other settings \(seconds 2\.0 instead of 1\.0"):
            prepare("wfdb", root, out, seconds=1, workers=1, shard_bytes=10_000)
        write_record(root, "new", ecg(1))
        with pytest.raises(ValueError, match=r"unfinished preparation of other settings \(records '\w+' instead of"):
            prepare("wfdb", root, out, seconds=2, workers=1, shard_bytes=10_000)
        manifest = prepare("wfdb", root, out, seconds=2, workers=1, overwrite=True)
        assert manifest.records == 300  # the new one is at 500 Hz and too short
        assert verify(out) == []

    def test_a_shard_that_did_not_reach_the_disk_is_written_again_and_a_broken_journal_is_an_error(self, tmp_path):
        root, out = collection(tmp_path / "ecgs", 300), tmp_path / "out"
        self.kill_in_the_middle(tmp_path, root, out, 1)
        done = json.loads((out / "prepare.json").read_text())["finished"]
        assert done
        (out / next(iter(done))).write_bytes(b"")
        (out / "train.tfrecord-00001-of-00099.tmp").write_bytes(b"half")
        prepare("wfdb", root, out, seconds=2, workers=1, shard_bytes=10_000)
        assert verify(out) == []
        assert not list(out.glob("*.tmp"))
        (out / "dataset.json").unlink()
        (out / "prepare.json").write_text("{")
        with pytest.raises(ValueError, match=r"prepare\.json is broken"):
            prepare("wfdb", root, out, seconds=2, workers=1)


class TestNoRoom:
    TOLD = "error: no room to write ({}); nothing half-written counts as finished: make room, then"
    FULL_DISK = """
mount -t tmpfs -o size={size}k none {disk} || exit 99
{prepare} --out {disk}/set
test $? = 1 && test ! -e {disk}/set/dataset.json && test -e {disk}/set/prepare.json || exit 98
test -z "$(find {disk} -name '*.tmp')" || exit 97
mount -o remount,size=64m {disk} && {prepare} --out {disk}/set && cp -r {disk}/set {copy}
"""

    def test_a_full_disk_leaves_nothing_that_looks_finished_and_going_on_gives_the_same_bytes(self, tmp_path):
        command = f"{sys.executable} -m ecgtf.cli.main prepare --limit 200 --workers 2"
        prepare(None, None, tmp_path / "at once", limit=200)
        (tmp_path / "disk").mkdir()
        for size in (4200, 1500):  # kilobytes: the disk is full in the middle of the training split, or after one of three
            script = self.FULL_DISK.format(size=size, disk=tmp_path / "disk", prepare=command, copy=tmp_path / f"{size}")
            try:
                done = subprocess.run(
                    ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
                    capture_output=True, text=True, timeout=300, check=False,
                )  # fmt: skip
            except FileNotFoundError:
                pytest.skip("needs unshare, for a small disk of its own")
            if done.returncode == 99 or "unshare" in done.stderr:
                pytest.skip(f"needs the right to mount a small disk: {done.stderr[-200:]}")
            assert done.returncode == 0, done.stderr[-2000:]
            assert self.TOLD.format("No space left on device") in done.stderr
            assert content(tmp_path / f"{size}") == content(tmp_path / "at once")

    @pytest.mark.skipif(os.name != "posix", reason="needs a limit of the size of files")
    def test_a_file_that_may_not_grow_is_told_likewise(self, tmp_path):
        limited = (
            "import resource, sys; from ecgtf.cli.main import main; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)); "
            "sys.argv = ['ecgtf', 'prepare', '--limit', '200', '--out', sys.argv[1]]; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", limited, str(tmp_path / "set")], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 1
        assert self.TOLD.format("File too large") in done.stderr
        names = {path.name for path in (tmp_path / "set").iterdir()}
        assert "prepare.json" in names
        assert not any(name == "dataset.json" or "tmp" in name or name.startswith("train") for name in names)
        prepare(None, None, tmp_path / "set", limit=200)
        prepare(None, None, tmp_path / "at once", limit=200)
        assert content(tmp_path / "set") == content(tmp_path / "at once")
