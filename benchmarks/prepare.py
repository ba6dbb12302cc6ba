"""How fast and in how much memory collections become data sets: `python benchmarks/prepare.py [--records N] [--copies K] [--save]`.

Simulates N WFDB records of 10 s at 500 Hz, each K times over (hard links), then in turns: the plain loop that a
user would write (`wfdb.rdsamp`, `scipy.signal.resample_poly` to 100 Hz, nothing stored, one core; over 300 of the records), and
`ecgtf prepare wfdb` to 100 Hz shards, its start included, with filters off and on, with the peak memory of all its processes.
The limit: reading the signal files and writing as many bytes as the shards have, without any work between.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import wfdb
from machine import described
from scipy.signal import resample_poly
from tables import compare, options, show, spread
from workers import COMMAND, in_turns

from ecgtf.generators.simulator import simulate_collection

PEER = "wfdb.rdsamp + resample_poly, one core"
OURS = "ecgtf prepare"


def plain_loop(root: Path, most: int = 300) -> float:
    """Records a second of wfdb and SciPy, over the first records."""
    headers = sorted(root.rglob("*.hea"))[:most]
    started = time.perf_counter()
    for header in headers:
        signal, _ = wfdb.rdsamp(str(header.with_suffix("")))
        resample_poly(signal, 1, 5, axis=0)
    return len(headers) / (time.perf_counter() - started)


def prepare(root: Path, out: Path, *options: str) -> tuple[float, float]:
    """Records a second of the command, its start included, and the peak memory of its processes in GiB."""
    command = [*COMMAND, "prepare", "wfdb", str(root), "--out", str(out), "--overwrite", "--quiet", *options]
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, sum(resident(pid) for pid in family(process.pid)))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the preparation failed with {process.returncode}")
    return len(list(root.rglob("*.hea"))) / (time.perf_counter() - started), peak / 2**30


def family(pid: int) -> list[int]:
    """A process and all that it started (Linux)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in family(int(child)))]


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def copies(root: Path, count: int) -> Path:
    """A folder with every record `count` times."""
    many = root.with_name("copies")
    for copy in range(count):
        for file in root.rglob("S*"):
            place = many / str(copy) / file.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, place)
    return many


def copy_limit(root: Path, out: Path) -> float:
    """Records a second of reading every signal file and writing a fifth of its bytes: what the disk allows."""
    files = sorted(root.rglob("*.dat"))
    started = time.perf_counter()
    with (out / "limit").open("wb") as copy:
        for file in files:
            content = file.read_bytes()
            copy.write(content[: len(content) // 5])
    return len(files) / (time.perf_counter() - started)


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=10)
    arguments = parser.parse_args()
    print(described())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = copies(simulate_collection(folder / "wfdb", arguments.records, seed=0, rate=500), arguments.copies)
        filters = ("--band", "0.5,40", "--mains", "50")
        found = in_turns(
            {
                PEER: lambda: (plain_loop(root), 0.0),
                OURS: lambda: prepare(root, folder / "out"),
                f"{OURS} {' '.join(filters)}": lambda: prepare(root, folder / "out", *filters),
                "limit: read and write the bytes alone": lambda: (copy_limit(root, folder), 0.0),
            },
            arguments.rounds,
        )
    print(f"{arguments.records * arguments.copies} records")
    rates = {way: [rate for rate, _ in values] for way, values in found.items()}
    ratios = {way: statistics.median(values) / statistics.median(rates[PEER]) for way, values in rates.items()}
    peaks = {way: max(peak for _, peak in values) for way, values in found.items()}
    show(
        ("way", "records/s", "ratio", "peak memory (GiB)"),
        [(way, spread(rates[way], 0), f"{ratios[way]:.1f}", f"{peaks[way]:.2f}" if peaks[way] else "") for way in rates],
    )
    compare("prepare", {f"{way} over {PEER}": ratio for way, ratio in ratios.items() if way.startswith(OURS)}, arguments.save)


if __name__ == "__main__":
    main()
