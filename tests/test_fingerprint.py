import csv
from pathlib import Path

import numpy as np
import pytest

from ecgtf.data_prep.signals import resample
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, select_leads
from ecgtf.fingerprint import MOST_DIFFERENT_BITS, copies, fingerprint
from ecgtf.generators.simulator import simulate_records
from ecgtf.wfdb_io import read_record

PTBXL = Path(__file__).parents[2] / "shared" / "data" / "ptb-xl"


def different_bits(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


@pytest.fixture(scope="module")
def signals():
    return [record.signal for record in simulate_records(40, seed=1, rate=100, seconds=10)]


def test_it_survives_scale_offset_noise_and_rounding_and_tells_records_apart(signals):
    rng = np.random.default_rng(0)
    prints = [fingerprint(signal, LEADS, 100) for signal in signals]
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in prints)
    for signal, text in zip(signals, prints, strict=True):
        for changed in (2 * signal, signal + 0.3, np.round(signal, 2), signal + rng.normal(0, 0.01, signal.shape)):
            assert different_bits(text, fingerprint(changed, LEADS, 100)) <= MOST_DIFFERENT_BITS
    apart = [different_bits(a, b) for i, a in enumerate(prints) for b in prints[:i]]
    assert min(apart) > 2 * MOST_DIFFERENT_BITS
    assert 55 < np.median(apart) < 70


def test_it_depends_on_the_independent_leads_alone(signals):
    eight = select_leads(signals[0], LEADS, INDEPENDENT_LEADS)
    assert fingerprint(eight, INDEPENDENT_LEADS, 100) == fingerprint(signals[0], LEADS, 100)
    assert fingerprint(signals[0][:, 2:4], ("III", "aVR"), 100) != fingerprint(signals[0][:, 3:5], ("aVR", "aVL"), 100)


def test_it_is_the_same_on_every_machine():
    time = np.arange(1000)[:, None] / 100
    signal = np.sin(2 * np.pi * time * np.arange(1, 13) * 0.1).astype(np.float32)
    assert fingerprint(signal, LEADS, 100) == "2e582dddfa9fe14d312711df3956d8c1"


def test_copies_are_found_up_to_the_stated_number_of_bits_and_equal_ones_are_paired_once():
    rng = np.random.default_rng(3)
    prints = [rng.bytes(16).hex() for _ in range(3000)]
    for bits in (1, MOST_DIFFERENT_BITS, MOST_DIFFERENT_BITS + 1):
        flips = rng.choice(128, bits, replace=False)
        prints.append(f"{int(prints[bits], 16) ^ sum(1 << int(flip) for flip in flips):032x}")
    found = copies(prints)
    assert (1, 3000) in found
    assert (MOST_DIFFERENT_BITS, 3001) in found
    assert all(different_bits(prints[i], prints[j]) <= MOST_DIFFERENT_BITS for i, j in found)
    assert len(found) == 2
    assert copies(["ab" * 16] * 1000) == [(0, place) for place in range(1, 1000)]
    assert copies([]) == []


@pytest.mark.skipif(not PTBXL.is_dir(), reason="needs the part of PTB-XL in ../shared/data")
def test_ptbxl_at_500_hz_is_recognised_in_its_100_hz_files_and_nothing_else_is():
    with (PTBXL / "ptbxl_database.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    low, high = {}, {}
    for row in rows:
        if (PTBXL / f"{row['filename_lr']}.hea").is_file():
            low[row["ecg_id"]] = fingerprint(*read_record(PTBXL / row["filename_lr"]))
        if (PTBXL / f"{row['filename_hr']}.hea").is_file():
            signal, leads, rate = read_record(PTBXL / row["filename_hr"])
            high[row["ecg_id"]] = fingerprint(resample(signal, rate, 100), leads, 100)
    names = [*low, *high]
    pairs = [(names[i], names[j]) for i, j in copies([*low.values(), *high.values()])]
    assert sorted(pairs) == sorted((name, name) for name in high if name in low)
    assert len(pairs) == 242
