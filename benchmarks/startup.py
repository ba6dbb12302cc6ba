"""How long the command line takes to start: `python benchmarks/startup.py [--rounds 5] [--save]`.

In turns: a bare interpreter, `import tensorflow, keras`, and the commands `--help`, `info` of a data set of 200 records and
`generate` of a record of each class from the shipped generator, which loads, compiles and draws. The limit of each is the
interpreter's start or the libraries' import.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile

from machine import described
from tables import compare, options, show, spread
from workers import seconds

COMMAND = ("-c", "import sys; from ecgtf.cli.main import main; sys.exit(main())")


def main() -> None:
    arguments = options(__doc__, rounds=5).parse_args()
    print(described())
    with tempfile.TemporaryDirectory() as folder:
        bare, libraries = ("-c", "pass"), ("-c", "import tensorflow, keras")
        ways = {
            "python": (bare, bare),
            "import tensorflow, keras": (libraries, libraries),
            "ecgtf --help": ((*COMMAND, "--help"), bare),
            "ecgtf info": ((*COMMAND, "info", folder + "/data"), bare),
            "ecgtf generate": (
                (*COMMAND, "generate", "--pretrained", "--per-class", "1", "--out", folder + "/set", "--overwrite", "--quiet"),
                libraries,
            ),
        }
        prepare = (*COMMAND, "prepare", "--limit", "200", "--out", folder + "/data", "--quiet")
        subprocess.run([sys.executable, *prepare], check=True, capture_output=True)
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, (way, _limit) in ways.items():
                run = [sys.executable, *way]
                found[name].append(seconds(lambda run=run: subprocess.run(run, check=True, capture_output=True)))
    limit = {bare: statistics.median(found["python"]), libraries: statistics.median(found["import tensorflow, keras"])}
    times = {name: statistics.median(values) / limit[ways[name][1]] for name, values in found.items()}
    show(("what", "s", "times its limit"), [(name, spread(found[name], 2), f"{times[name]:.1f}") for name in ways])
    compare("startup", {f"{name}, limit over time": 1 / ratio for name, ratio in times.items()}, arguments.save)


if __name__ == "__main__":
    main()
