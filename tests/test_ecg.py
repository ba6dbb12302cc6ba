"""Lead names and the algebra of the limb leads."""

import numpy as np
import pytest

from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, Record, canonical_lead, canonical_leads, derive_leads, lead_matrix, select_leads


@pytest.fixture
def eight() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 50, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("spelling", "lead"),
    [
        ("avr", "aVR"),
        ("AVR", "aVR"),
        ("i", "I"),
        ("II", "II"),
        ("lead ii", "II"),
        ("Lead_V1", "V1"),
        (" v6 ", "V6"),
        ("aVf", "aVF"),
    ],
)
def test_canonical_lead_in_any_spelling(spelling, lead):
    assert canonical_lead(spelling) == lead


def test_canonical_leads_keep_their_order():
    assert canonical_leads([lead.swapcase() for lead in reversed(LEADS)]) == LEADS[::-1]


@pytest.mark.parametrize("name", ["V7", "", "lead", "IIII", "MLII"])
def test_unknown_lead_is_refused_naming_the_choices(name):
    with pytest.raises(ValueError, match="expected one of I, II, III, aVR"):
        canonical_lead(name)


def test_a_lead_named_twice_is_refused():
    with pytest.raises(ValueError, match="lead aVR is named more than once"):
        canonical_leads(["avr", "I", "AVR"])


def test_derived_leads_obey_einthoven_and_goldberger(eight):
    lead = dict(zip(LEADS, np.moveaxis(derive_leads(eight), -1, 0), strict=True))
    np.testing.assert_allclose(lead["II"], lead["I"] + lead["III"], atol=1e-6)
    np.testing.assert_allclose(lead["aVR"], -(lead["I"] + lead["II"]) / 2, atol=1e-6)
    np.testing.assert_allclose(lead["aVL"], (lead["I"] - lead["III"]) / 2, atol=1e-6)
    np.testing.assert_allclose(lead["aVF"], (lead["II"] + lead["III"]) / 2, atol=1e-6)
    np.testing.assert_allclose(lead["aVR"] + lead["aVL"] + lead["aVF"], 0, atol=1e-6)


def test_derived_leads_keep_the_measured_ones_and_the_precision(eight):
    twelve = derive_leads(eight)
    assert twelve.shape == (3, 50, 12)
    assert twelve.dtype == np.float32
    assert np.array_equal(select_leads(twelve, LEADS, INDEPENDENT_LEADS), eight)


def test_derive_leads_refuses_another_number_of_leads(eight):
    with pytest.raises(ValueError, match=r"expected the 8 leads I, II, V1.*received shape \(3, 50, 7\)"):
        derive_leads(eight[..., :7])


def test_lead_matrix_by_hand():
    matrix = lead_matrix(("V1", "II", "I"), ("III", "V1", "aVL"))
    assert np.array_equal(matrix, [[0, 1, 0], [1, 0, -0.5], [-1, 0, 1]])


def test_select_leads_by_name_in_any_order(eight):
    have = INDEPENDENT_LEADS[::-1]
    picked = select_leads(eight[..., ::-1], have, ("V5", "I"))
    assert np.array_equal(picked, eight[..., [6, 0]])
    assert select_leads(eight, INDEPENDENT_LEADS, list(INDEPENDENT_LEADS)) is eight


def test_what_is_missing_in_a_lead_is_missing_there_and_in_what_is_derived_from_it(eight):
    signal = np.array(eight[0])
    signal[3, INDEPENDENT_LEADS.index("V5")] = np.nan
    signal[5, INDEPENDENT_LEADS.index("II")] = np.nan
    missing = np.isnan(select_leads(signal, INDEPENDENT_LEADS, LEADS))
    assert [LEADS[lead] for lead in np.flatnonzero(missing[3])] == ["V5"]
    assert [LEADS[lead] for lead in np.flatnonzero(missing[5])] == ["II", "III", "aVR", "aVL", "aVF"]
    assert missing.sum() == 6


def test_a_measured_limb_lead_is_preferred_to_a_derived_one():
    signal = np.array([[1.0, 2.0, 9.0]])  # III does not fit I and II, yet it was measured
    assert np.array_equal(select_leads(signal, ("I", "II", "III"), ("III", "aVF")), [[9.0, 1.5]])


@pytest.mark.parametrize("have", [("I", "V1"), ("II", "III"), ("V1", "V2")])
def test_leads_that_cannot_be_derived_are_named(have):
    with pytest.raises(ValueError, match="leads aVF, V6 are missing; the signal has"):
        select_leads(np.zeros((4, 2)), have, ("aVF", "V6"))


def test_record_has_no_signal_until_it_is_read():
    record = Record("source/1")
    assert record.signal is None
    assert record.leads == LEADS
    assert Record("a").codes == ()
