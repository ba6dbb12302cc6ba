"""ecgtf: 12-lead ECG collections to TFRecords, class-conditional generators, classifiers and measures of closeness.

The Python API mirrors the command line; each name below is imported when it is first used, so `import ecgtf` is quick.
"""

from importlib import import_module
from importlib.metadata import version

__version__ = version("ecgtf")

_LAZY = {
    "load_dataset": "ecgtf.dataset",
    "load_run": "ecgtf.synthesis",
    "load_pretrained": "ecgtf.sharing",
    "evaluate": "ecgtf.closeness.evaluate",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ecgtf' has no attribute {name!r}")
