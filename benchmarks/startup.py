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
from functools import partial

from machine import described
from tables import compare, options, show, spread
from workers import COMMAND, in_turns, seconds


def main() -> None:
    arguments = options(__doc__, rounds=5).parse_args()
    print(described())
    with tempfile.TemporaryDirectory() as folder:
        bare, libraries = (sys.executable, "-c", "pass"), (sys.executable, "-c", "import tensorflow, keras")
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
        run = partial(subprocess.run, check=True, capture_output=True)
        run(prepare)
        found = in_turns({name: lambda way=way: seconds(lambda: run(way)) for name, (way, _) in ways.items()}, arguments.rounds)
    limit = {bare: statistics.median(found["python"]), libraries: statistics.median(found["import tensorflow, keras"])}
    times = {name: statistics.median(values) / limit[ways[name][1]] for name, values in found.items()}
    show(("what", "s", "times its limit"), [(name, spread(found[name], 2), f"{times[name]:.1f}") for name in ways])
    compare("startup", {f"{name}, limit over time": 1 / ratio for name, ratio in times.items()}, arguments.save)


if __name__ == "__main__":
    main()
