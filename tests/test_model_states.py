"""Weights, sums, counts and labels of a model agree, whatever was done to it and whatever failed."""

import numpy as np
import pytest
import torch

import glai_native as glai
from conftest import make_mlp

LABELS = ["ant", "bee", "cat"]


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 3
    x = torch.randn(240, 4, generator=generator, dtype=torch.float64)
    x += torch.eye(3, 4, dtype=torch.float64)[y] * 2
    return x, y


@pytest.fixture
def selector(data):
    return glai.PathSelector(make_mlp(4, 6, 3, dtype=torch.float64), glai.InputProjection.fit(data[0]))


@pytest.fixture
def model(selector, data):
    model = glai.fit(selector, *data, solver="statistics", progress=False).model
    model.estimator.class_labels = LABELS
    return model


def test_pruned_and_grown_models_keep_their_labels(model, data):
    assert glai.prune(model, model.selector.unit_gates(data[0])).estimator.class_labels == LABELS
    assert glai.grow(model, 0, 2).estimator.class_labels == LABELS


@pytest.mark.parametrize("labels", [["ant"], [b"ant", b"bee", b"cat"], list(np.arange(3))])
def test_labels_that_no_file_can_hold(model, labels):
    with pytest.raises(ValueError, match="class_labels must be C=3 ints, floats or texts, got "):
        model.estimator.class_labels = labels
    assert model.estimator.class_labels == LABELS
