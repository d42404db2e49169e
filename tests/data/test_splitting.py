"""The split into train and held out: every class is in train, whatever the seed."""

import numpy as np
import pytest

from glai_native.data.splitting import split_rows


@pytest.mark.parametrize("seed", range(8))
def test_the_only_sample_of_a_class_is_trained_on_and_the_others_stay_in_proportion(seed):
    classes = np.array([*["a"] * 80, *["b"] * 16, "c", *["d"] * 4, "e"])
    train, held_out = split_rows(classes, len(classes), 25, seed)
    assert sorted([*train, *held_out]) == list(range(len(classes)))
    found = dict(zip(*np.unique(classes[held_out], return_counts=True), strict=True))
    assert found == {"a": 20, "b": 4, "d": 1}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("classes", "n_held_out"),
    [
        (np.repeat(np.arange(30), 3), 20),  # more classes than samples to hold out
        (np.repeat(np.arange(30), 2), 50),  # fewer rows left than classes
        (np.repeat(np.arange(5), [1, 1, 1, 1, 90]), 40),
        (np.array([0] * 50 + [1] * 2), 47),  # in proportion, train would have none of the second
        (np.array([0, 1, 2, 2]), 1),
    ],
)
def test_train_has_every_class(classes, n_held_out, seed):
    train, held_out = split_rows(classes, len(classes), n_held_out, seed)
    assert sorted([*train, *held_out]) == list(range(len(classes)))
    assert set(classes[train]) == set(classes)
    assert 0 < len(held_out) <= n_held_out


def test_nothing_is_held_out_where_each_sample_is_the_only_one_of_its_class():
    train, held_out = split_rows(np.arange(9), 9, 3, 0)
    assert sorted(train) == list(range(9))
    assert len(held_out) == 0


def test_without_classes():
    train, held_out = split_rows(None, 20, 6, 3)
    assert sorted([*train, *held_out]) == list(range(20))
    assert len(held_out) == 6
    assert np.array_equal(held_out, split_rows(None, 20, 6, 3)[1])
