"""WFDB folders of records that are quickly written and read."""

import numpy as np

from ecgtf.ecg import LEADS, select_leads
from ecgtf.wfdb_io import write_record


def ecg(number, samples=200, leads=12):
    """Something of an ECG's size with its limb leads in order."""
    signal = 0.3 * np.random.default_rng(number).normal(size=(samples, 8))
    twelve = select_leads(signal, ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), LEADS)
    return twelve[:, :leads].astype(np.float32)


def collection(root, count=24, samples=200, rate=100):
    for number in range(count):
        code = ("426783006", "164889003", "426177001")[number % 3]
        write_record(root / f"{number % 2}", f"r{number:03d}", ecg(number, samples), LEADS, rate, [f"Dx: {code}", "Age: 50"])
    return root


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
