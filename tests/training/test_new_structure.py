"""How long a new structure is trained, and at which rate."""

import pytest
import torch

import glai_native.training.new_structure as new_structure
from glai_native.structure.settling import SETTLED, StructureMonitor, train_structure


@pytest.fixture
def told(monkeypatch):
    """What the monitor and the training are told."""
    found = {}

    def monitor(**settings):
        found.update(settings)
        return StructureMonitor(**settings | {"max_epochs": 1})

    def train(*given, learning_rate, **options):
        found["learning_rate"] = learning_rate
        return train_structure(*given, learning_rate=learning_rate, **options)

    monkeypatch.setattr(new_structure, "StructureMonitor", monitor)
    monkeypatch.setattr(new_structure, "train_structure", train)
    monkeypatch.setattr(new_structure, "EPOCHS_SAMPLES", 60_000)
    return found


def train(n, d, held_out=0.1, **options):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, d, generator=generator), torch.randint(3, (n,), generator=generator)
    new_structure.train_selector(x, y, 3, 4, held_out=held_out, progress=False, **options)


@pytest.mark.parametrize(
    ("n", "d", "rate", "patience", "threshold", "epochs"),
    [
        (2500, 32, 3e-3, 10, None, 24),
        (2500, 33, 1e-3, 5, None, 24),
        (2000, 32, 1e-3, 5, SETTLED, 30),  # few: the dual is taken
        (9000, 4, 3e-3, 10, None, 15),
        (500, 4, 1e-3, 5, SETTLED, 100),
    ],
)
def test_by_the_data(told, n, d, rate, patience, threshold, epochs):
    train(n, d)
    assert (told["learning_rate"], told["validation_patience"], told["threshold"]) == (
        rate,
        patience,
        threshold,
    )
    assert told["max_epochs"] == epochs


def test_where_nothing_is_held_out_the_pattern_settles(told):
    train(2500, 4, held_out=0.0, epochs=7)
    assert (told["threshold"], told["max_epochs"]) == (SETTLED, 7)


def test_weights_are_repetitions(told):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1100, 4, generator=generator), torch.randint(3, (1100,), generator=generator)
    found = []
    for inputs, targets, weight in (
        (x, y, torch.full((1100,), 2.0)),
        (x.repeat(2, 1), y.repeat(2), None),
        (torch.cat([x, x + 1]), y.repeat(2), torch.tensor([2.0, 0.0]).repeat_interleave(1100)),
    ):
        new_structure.train_selector(
            inputs, targets, 3, 4, held_out=0.1, sample_weight=weight, progress=False
        )
        found.append((told["learning_rate"], told["threshold"], told["max_epochs"]))
    assert found == [(1e-3, SETTLED, 54)] * 3
