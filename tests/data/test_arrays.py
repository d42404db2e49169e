"""NumPy's arrays of any layout become tensors of the same values."""

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.data.arrays import array_tensor

A = np.arange(12.0, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    "array",
    [
        A[:1][::-1],
        A[:, :1][:, ::-1],
        A[::-1],
        A[:, ::-1],
        A[:0][::-1],
        A.T,
        A.astype(">f4"),
        np.broadcast_to(A[:1], (5, 4)),
        np.zeros(3, dtype=[("a", "f4"), ("b", "i1")])["a"][:1],  # no whole number of elements apart
        np.asfortranarray(A),
        np.float32(3),
        [[1.0, 2.0]],
    ],
)
def test_any_layout(array):
    tensor = array_tensor(array)
    assert np.array_equal(tensor.numpy(), array)
    tensor += 1  # writable


def test_own_memory_is_shared():
    array = A.copy()
    array_tensor(array)[0, 0] = 7
    assert array[0, 0] == 7


def test_learners_and_models_take_reversed_views():
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    y = x[:, 0] > 0
    learner = glai.GLAIClassifier((8,), random_state=0).fit(x, y)
    for rows in (x[:1][::-1], x[::-1], x[:, :][::-2]):
        same = rows.copy()
        assert (learner.predict(rows) == learner.predict(same)).all()
        assert (learner.predict_proba(rows) == learner.predict_proba(same)).all()
        assert (learner.model_.predict(rows) == learner.model_.predict(same)).all()
    backwards = glai.GLAIClassifier((8,), random_state=0).fit(
        x[:, ::-1], y[:], sample_weight=np.ones(60, np.float32)[::-1]
    )
    again = glai.GLAIClassifier((8,), random_state=0).fit(x[:, ::-1].copy(), y, sample_weight=np.ones(60))
    assert (backwards.predict(x) == again.predict(x)).all()
    one = glai.GLAIClassifier((4,)).partial_fit(x[:1][::-1], y[:1][::-1], classes=[False, True])
    assert one.predict(x[:1][::-1]).shape == (1,)
    assert torch.isfinite(
        torch.tensor(glai.GLAIRegressor((4,)).fit(x[::-1], x[::-1, 1]).predict(x[:1][::-1]))
    ).all()
