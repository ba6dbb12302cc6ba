"""Any folder of the PhysioNet/CinC Challenges 2020 and 2021: CPSC, CPSC-Extra, St Petersburg INCART, PTB, PTB-XL, Georgia, ...

Perez Alday et al., "Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge 2020", Physiological
Measurement 41:124003 (2020); Reyna et al., "Will Two Do? Varying Dimensions in Electrocardiography: The PhysioNet/Computing in
Cardiology Challenge 2021", Computing in Cardiology 48 (2021); https://physionet.org/content/challenge-2021/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ecgtf.data_prep.wfdb_folder import find_records, read_records
from ecgtf.ecg import Record, Rejection

SOURCE = {
    "name": "challenge",
    "licence": "CC BY 4.0",
    "citation": (
        "Perez Alday et al., Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge 2020, Physiological "
        "Measurement 41:124003 (2020); Reyna et al., Will Two Do? Varying Dimensions in Electrocardiography: The PhysioNet/"
        "Computing in Cardiology Challenge 2021, Computing in Cardiology 48 (2021)"
    ),
}


def read_challenge(root: str | Path) -> Iterator[Record | Rejection]:
    """Every `*.hea` below `root`, nested or flat, in order of the paths, without signals.

    Codes are what `#Dx:` lists, as it is written: SNOMED CT codes, or in some releases of CPSC 2018 its words (AF, I-AVB, LBBB,
    Normal, PAC, PVC, RBBB, STD, STE), of which AF and Normal are rhythms. Rates and lengths differ between the parts (257 Hz
    and 30 min in INCART, up to 1000 Hz and 2 min in PTB).

    No header names a patient, so that every record counts as a patient of its own. Known to be wrong for St Petersburg INCART,
    whose 75 records (`I0001` ...) are parts of 32 patients' recordings, for PTB (`S0001` ..., up to five records of a patient) and for
    the challenges' copy of PTB-XL (`HR00001` ..., 21,837 records of 18,885 patients), but the headers do not tell whose: splits may
    part a patient's records. PTB-XL's own table tells (`prepare ptbxl`).

    Raises:
        ValueError: if `root` is no folder or holds no record.
    """
    root = Path(root)
    names = find_records(root, "a folder of challenge records (*.hea beside *.mat)")
    return read_records(root, names, SOURCE["name"])
