"""A virtual environment for the code that is measured against, made at the first use: `python benchmarks/peers.py [FOLDER]`."""

from __future__ import annotations

import argparse
import subprocess
import venv
from pathlib import Path

FOLDER = Path.home() / ".cache" / "ecgtf" / "peers"
PEERS = ("torch==2.13.0", "diffusers==0.42.1", "tsgm==0.1.0", "prdc==0.2", "pandas<3", "einops")
"""With what they depend on; pandas is one that tsgm's pinned statsmodels can read."""
ALONE = ("denoising-diffusion-pytorch==2.3.4", "diffwave==0.1.7")
"""Installed without what else they depend on: their networks do not need it, and with it come several GB."""


def add_peers(parser: argparse.ArgumentParser) -> None:
    """`--peers`, of the topics that measure against them."""
    parser.add_argument("--peers", type=Path, default=FOLDER, help="folder of the peers' virtual environment")


def peers_python(folder: Path = FOLDER) -> Path:
    """The interpreter of the environment in this folder, which is made where it is not there yet."""
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    wanted = "\n".join(PEERS + ALONE)
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(PEERS + ALONE)} to {folder}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        for options in (PEERS, ("--no-deps", *ALONE)):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *options], check=True)
        done.write_text(wanted)
    return python


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    print(peers_python(parser.parse_args().folder))
