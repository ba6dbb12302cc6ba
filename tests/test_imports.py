"""Who may import whom, read from the sources."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMPY_ONLY = "atomic signals workers fingerprint record_table ecg tasks tfrecord manifest shards progress wfdb_io report"
NUMPY_ONLY += " copies generators.simulator cli data_prep"
NUMPY_ONLY += " closeness.distribution closeness.temporal closeness.privacy closeness.prediction closeness.loading"
NUMPY_ONLY += " closeness.physiology closeness.average_beat closeness.delineation closeness.intervals closeness.measurements"
NUMPY_ONLY += " closeness.membership closeness.leaks"
DATA = "ecg atomic tasks tfrecord manifest shards copies stream dataset"

ALLOWED = {  # module or package: what it may import; the longest name that fits a module counts
    "ecg": "",
    "atomic": "",
    "progress": "",
    "quiet": "",
    "signals": "",
    "workers": "signals",
    "fingerprint": "ecg",
    "record_table": "atomic",
    "copies": "ecg manifest fingerprint record_table",
    "info": f"{DATA} record_table",
    "tf_data": "",
    "tfrecord": "",
    "tasks": "ecg",
    "manifest": "ecg atomic",
    "shards": "ecg atomic manifest tfrecord",
    "stream": "ecg tasks tf_data tfrecord manifest shards copies",
    "dataset": DATA,
    "wfdb_io": "ecg atomic",
    "augment": "ecg",
    "data_prep": f"{DATA} wfdb_io generators.simulator progress workers fingerprint record_table",
    "conditions": f"{DATA} closeness.physiology",
    "generators": "ecg conditions",
    "generators.simulator": "atomic ecg wfdb_io workers",  # writes its collections itself
    "generators.checks": "",
    "generators.samplers": "",
    "generators.schedules": "",
    "generators.diffwave": "generators.checks generators.step_embedding",
    "generators.time_diffusion": "generators.checks generators.step_embedding generators.transformer",
    "classifiers": "ecg",
    "classifiers.networks": "ecg classifiers run_folder tf_data",
    "classifiers.fitting": "ecg classifiers run_folder training augment",
    # these two compose training runs of classifiers, as train_generator does of generators
    "classifiers.classifier": f"{DATA} classifiers run_folder training precision augment progress report",
    "classifiers.transfer": f"{DATA} classifiers run_folder training precision augment progress report",
    "classifiers.examples": f"{DATA} augment tf_data",
    "closeness": "ecg tasks",
    "closeness.comparison": f"{DATA}",
    "closeness.loading": f"{DATA} closeness",
    "closeness.external": f"{DATA} closeness data_prep",  # WFDB records are prepared as any others
    "closeness.results": "closeness classifiers run_folder manifest",
    "closeness.contents": "atomic closeness classifiers run_folder report manifest",
    "closeness.sections": "closeness report",
    "closeness.utility": "ecg tasks closeness classifiers run_folder manifest",
    "closeness.evaluate": f"{DATA} closeness classifiers.networks progress signals",
    "report": "ecg atomic closeness",
    "run_folder": "atomic manifest",
    "callbacks": "ecg atomic run_folder report closeness progress",
    "judging": "closeness",
    "pictures": "generators report",
    "optimizer": "",
    "precision": "",
    "training": "ecg run_folder callbacks optimizer signals",
    "synthesis": f"{DATA} conditions run_folder precision generators wfdb_io progress",
    "sharing": "atomic run_folder synthesis",
    "train_generator": f"{DATA} conditions run_folder training precision judging pictures generators augment progress",
    "studies": "*",
    "demo": "*",
    "cli": "*",
    "": "",  # ecgtf/__init__.py: names its modules as strings and imports them when they are used
}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("ecgtf.").removesuffix(".__init__"): path
    for folder in ("ecgtf", "cli", "data_prep")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
MODULES[""] = MODULES.pop("__init__")  # of ecgtf


def imports(path: Path, *, at_module_level: bool = False) -> set[str]:
    """Full names of what a file imports; `TYPE_CHECKING` blocks do not count, functions only without `at_module_level`."""
    found, waiting = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        for child in ast.iter_child_nodes(node):
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            type_checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if not type_checking and not (function and at_module_level):
                waiting.append(child)
    return found


def ours(names: set[str]) -> set[str]:
    """The modules of this package among imported names; `ecgtf.ecg.LEADS` gives `ecg`."""
    modules = set()
    for name in names:
        if name.split(".")[0] == "ecgtf":
            name = name.removeprefix("ecgtf").removeprefix(".")
            while name and name not in MODULES and name not in ALLOWED:
                name = name.rpartition(".")[0]
            modules.add(name)
    return modules


def within(module: str, packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages.split())


def rule_of(module: str) -> str:
    return max((name for name in ALLOWED if within(module, name) or name == module or name == ""), key=len)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_table(module):
    rule = rule_of(module)
    assert rule or module == "", f"{module} is not in the table of who may import whom"
    allowed = ALLOWED[rule]
    own = module.split(".")[0] if "." in module or MODULES[module].name == "__init__.py" else ""
    for imported in ours(imports(MODULES[module])):
        free = imported == "" or allowed == "*" or within(imported, f"{allowed} {own}")
        assert free, f"{module} imports {imported}; it may import: {allowed or 'nothing of ours'}, and its own package"


@pytest.mark.parametrize("module", [module for module in MODULES if within(module, NUMPY_ONLY)])
def test_light_modules_import_no_tensorflow(module):
    """Worker processes and `--help` stay quick: neither a module of theirs nor what it imports brings TensorFlow along."""
    seen, waiting = set(), [module]
    while waiting:
        current = waiting.pop()
        names = imports(MODULES[current], at_module_level=True)
        heavy = {name.split(".")[0] for name in names} & {"tensorflow", "keras", "tensorflow_probability"}
        assert not heavy, f"{module} imports {', '.join(heavy)} through {current}"
        fresh = {name for name in ours(names) if name in MODULES} - seen
        seen |= fresh
        waiting.extend(fresh)


def test_nothing_imports_the_command_line():
    users = [
        name for name, path in MODULES.items() if not within(name, "cli") and any(within(m, "cli") for m in ours(imports(path)))
    ]
    assert users == []


def test_pandas_stays_in_data_prep():
    users = [name for name, path in MODULES.items() if any(item.split(".")[0] == "pandas" for item in imports(path))]
    assert all(within(name, "data_prep") for name in users)


def test_networks_know_no_schedule_sampler_or_data_set():
    networks = (
        "generators.diffwave generators.time_diffusion classifiers.resnet1d classifiers.inception_time classifiers.xresnet1d"
    )
    for module in filter(MODULES.__contains__, networks.split()):
        strangers = f"{DATA.removeprefix('ecg ')} generators.schedules generators.samplers classifiers.classifier"
        assert not {name for name in ours(imports(MODULES[module])) if within(name, strangers)}, module
