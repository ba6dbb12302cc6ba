"""How arms and numbers are spelt in the tables, figures and sentences of a study."""

from __future__ import annotations

from ecgtf.studies.analysis import Estimate
from ecgtf.studies.cells import Cell
from ecgtf.studies.config import FOREST, SCRATCH, renamed
from ecgtf.studies.pooling import TUNED, Pools

NOT_YET = "not yet run"
NOTHING = "–"


def percent(share: float) -> str:
    """A share as in `20 %`."""
    return f"{100 * share:g} %"


def ratio(arm: Cell) -> str:
    """Synthetic records for each real one, as in `0.5:1`."""
    return f"{arm.ratio:g}:1" if arm.ratio else NOTHING


def recipe(arm: Cell) -> str:
    """The recipe's name."""
    return "tuned" if arm.recipe == TUNED else arm.recipe or NOTHING


def source(arm: Cell, study: str, pools: Pools) -> str:
    """What the arm has beside or before its real records."""
    if arm.classifier == FOREST:
        return "feature forest"
    if arm.source == SCRATCH:
        return "real only" if study == "augmentation" else "scratch"
    return renamed(arm.source, lambda name: f"{name} (real)" if name in pools.config.all_collections else name)


def seen(arm: Cell, pools: Pools) -> str:
    """The share of the real training records that the arm's generator learnt from."""
    saw = pools.saw(arm)
    return f"{saw} ({percent(arm.seen)})" if saw == "same" else saw or NOTHING


def arm_in_words(arm: Cell, study: str, pools: Pools) -> str:
    """An arm, as a sentence names it, without its collection."""
    real = arm.classifier != FOREST and arm.stages in [(name,) for name in pools.config.all_collections]
    words = [arm.source if real else source(arm, study, pools)]
    if arm.ratio:
        words.append(f"{ratio(arm)} {arm.mixing}".strip())
    details = ["real"] if real else []
    if arm.classifier != FOREST and len(pools.recipes(arm)) > 1:
        details.append(recipe(arm))
    if pools.learned(arm) and study == "transfer":
        details.append(
            "generator trained on all real records" if arm.seen == 1 else f"generator trained on {percent(arm.seen)}"
        )
    if len({other.classifier for other in pools.arms} - {FOREST}) > 1 and arm.classifier != FOREST:
        details.append(arm.classifier)
    return " ".join(words) + (f" ({', '.join(details)})" if details else "")


def figure(value: float) -> str:
    """A score, to three digits."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """A difference with its sign; none where it is less than the last digit."""
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def with_interval(estimate: Estimate, spelt=figure) -> str:
    """As in `0.912 (0.890 to 0.930)`."""
    text = spelt(estimate.value)
    return text if estimate.low is None else f"{text} ({spelt(estimate.low)} to {spelt(estimate.high)})"


def p_value(p: float | None) -> str:
    """As in `0.012` or `< 0.001`."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
