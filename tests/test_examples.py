"""Records in memory: shares, mixtures, batches."""

from dataclasses import replace

import numpy as np
import pytest
from small_classifiers import examples

from ecgtf.augment import Augmentation, augmented
from ecgtf.classifiers.examples import dealt, mix, read_examples, read_splits, share, training_batches
from ecgtf.tasks import get_task


def test_shares_are_nested_stratified_and_keep_every_class():
    labels = np.eye(3, dtype="float32")[np.repeat([0, 1, 2], (80, 18, 2))]
    previous: set = set()
    for fraction, sizes in ((0.01, [1, 1, 1]), (0.2, [16, 4, 1]), (0.5, [40, 9, 1]), (1.0, [80, 18, 2])):
        kept = share(labels, fraction, seed=3)
        assert labels[kept].sum(axis=0).tolist() == sizes
        assert previous <= set(kept.tolist())
        previous = set(kept.tolist())
    assert not np.array_equal(share(labels, 0.2, seed=3), share(labels, 0.2, seed=4))


def test_shares_of_multi_hot_labels_keep_every_class():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 4)) < (0.6, 0.3, 0.02, 0.0)).astype("float32")
    labels[7, 3] = 1
    kept = share(labels, 0.05, seed=0)
    assert (labels[kept].sum(axis=0) > 0).all()
    assert len(kept) < 20
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        share(labels, 0.0, seed=0)


def test_synthetic_records_are_added_class_by_class():
    real, made = examples((10, 4, 2)), examples((50, 50, 3))
    assert mix(real, made, 1.5, False, 0).labels.sum(axis=0).tolist() == [15, 6, 3]
    assert mix(real, made, 2.0, False, 0).labels.sum(axis=0).tolist() == [20, 8, 3]  # no more than there are
    assert len(mix(real, made, 0.0, False, 0)) == 0
    assert len(mix(real, made, 0.5, True, 0)) == 8


def test_synthetic_records_may_balance_the_rare_classes():
    assert dealt(np.array([10, 4, 2]), 0.25, "balancing").tolist() == [0, 1, 3]  # to the smallest, one after another: 10, 5, 5
    assert dealt(np.array([10, 4, 2]), 1.0, "balancing").tolist() == [1, 7, 8]
    sizes = np.array([100, 7, 31, 0])
    for ratio in (0.0, 0.3, 1.0, 4.0):
        added = dealt(sizes, ratio, "balancing")
        assert added.sum() == round(ratio * sizes.sum())
        assert (added >= 0).all()
        filled = (sizes + added)[added > 0]
        assert ratio == 0 or filled.max() - filled.min() <= 1  # whoever got records ends level
    real, made = examples((10, 4, 2)), examples((50, 50, 5))
    assert mix(real, made, 1.0, False, 0, "balancing").labels.sum(axis=0).tolist() == [1, 7, 5]
    rare = mix(real, made, 3.0, True, 0, "balancing").labels.sum(axis=0)[2]
    assert rare > mix(real, made, 3.0, True, 0).labels.sum(axis=0)[2]
    with pytest.raises(ValueError, match="expected one of proportional, balancing"):
        mix(real, made, 1.0, False, 0, "evenly")


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_a_stream_entered_late_goes_on_as_if_never_left(balance):
    train = examples((5, 4, 2))
    options = {"batch_size": 4, "balance": balance, "seed": 5}
    whole = [batch[0].numpy() for batch in training_batches(train, **options).take(9)]
    late = [batch[0].numpy() for batch in training_batches(train, start_batch=6, **options).take(3)]
    np.testing.assert_array_equal(whole[6:], late)


def test_an_epoch_shows_every_record_once_and_balance_shows_classes_equally():
    train = examples((5, 4, 3))
    plain = np.concatenate([batch[0].numpy() for batch in training_batches(train, batch_size=4).take(3)])
    order = np.lexsort(plain[:, :2, 0].T), np.lexsort(train.signals[:, :2, 0].T)
    np.testing.assert_array_equal(plain[order[0]], train.signals[order[1]])
    train = examples((900, 90, 10))
    balanced = next(iter(training_batches(train, batch_size=3000, balance=1.0)))[1].numpy()
    np.testing.assert_allclose(balanced.mean(axis=0), 1 / 3, atol=0.04)


def test_ids_of_synthetic_sets_carry_the_name_of_the_set(real_set, synthetic_set):
    both = read_examples([real_set, synthetic_set], "train", get_task("rhythm7"))
    assert both.ids[0].startswith("toy/train/")
    assert both.ids[-1].startswith("synthetic/toy/train/")
    assert len(both) == len(both.signals) == 84


def test_no_thread_tunes_batches():
    batches = augmented(
        training_batches(examples((5, 5)), batch_size=4), 0, 0, Augmentation(gain=0.1), rate=100.0, leads=("I", "II")
    )
    assert not batches.options().autotune.enabled  # an iterator that ends would wait for it, asleep for seconds


def test_batches_show_sets_equally_often_on_request():
    train = examples((50, 50)).plus(replace(examples((5, 5), seed=1), sources=["b"] * 10))
    few = {signal.tobytes() for signal in train.signals[100:]}

    def share(**options) -> float:
        batch = next(iter(training_batches(train, batch_size=3000, **options)))[0].numpy()
        return np.mean([signal.tobytes() in few for signal in batch])

    assert share() == pytest.approx(10 / 110, abs=0.005)
    assert share(balance_sources=1.0) == pytest.approx(0.5, abs=0.03)
    assert share(balance=1.0) == pytest.approx(10 / 110, abs=0.02)  # the classes are balanced already


def test_a_synthetic_set_alone_is_tested_on_the_set_that_is_named(real_set, synthetic_set):
    train, validation, test = read_splits(synthetic_set, real_set, get_task("rhythm7"), seed=0)
    assert len(test) == 28
    assert train.labels.sum(axis=0).tolist() == [5.0] * 7  # one of the six is held out for validation
    assert validation.labels.sum(axis=0).tolist() == [1.0] * 7
    assert not set(train.ids) & set(validation.ids)
