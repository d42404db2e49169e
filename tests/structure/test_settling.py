import pytest
import torch

import glai_native as glai
from conftest import make_mlp


def blobs(n=300):
    g = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    centres = torch.tensor([[0.0, 4.0], [4.0, 0.0], [-4.0, -4.0]])
    return centres[y] + torch.randn((n, 2), generator=g) + 10, y


def test_training_settles_and_repeats():
    x, y = blobs()
    runs = []
    for _ in range(2):
        monitor = glai.StructureMonitor()
        epochs = []
        selector = glai.train_structure(
            make_mlp(2, 16, 3),
            x,
            y,
            monitor=monitor,
            learning_rate=1e-2,
            progress=False,
            on_epoch=epochs.append,
        )
        assert epochs == monitor.history
        runs.append((selector.structure_id, [epoch.flip_rate for epoch in monitor.history]))
    assert runs[0] == runs[1]
    assert monitor.settled
    assert 3 <= len(monitor.history) < monitor.max_epochs
    assert monitor.history[-1].loss < monitor.history[0].loss
    assert selector.projection.kind == "centring"
    assert float((selector(x).argmax(1) == y).double().mean()) > 0.95


def test_values_as_targets_and_own_projection():
    x, _ = blobs()
    y = (x[:, :1] - 10) * 2
    projection = glai.InputProjection.identity(2)
    monitor = glai.StructureMonitor(max_epochs=3, min_epochs=3)
    selector = glai.train_structure(make_mlp(2, 8, 1), x, y, projection, monitor, progress=False)
    assert selector.projection.kind == "identity"
    assert len(monitor.history) == 3
    assert monitor.should_stop


@pytest.mark.parametrize(
    ("rates", "settled_at"),
    [
        ([50, 5, 5], 3),
        ([50, 5, 6, 5, 5], 5),
        ([50, 30, 5, 5], 4),
        ([5, 0, 0], 3),
        ([0, 0, 0], 3),
        ([10, 40, 4, 4], 4),
    ],
)
def test_settled_is_relative_to_the_largest_flip_rate(rates, settled_at):
    monitor = glai.StructureMonitor()
    bits = torch.zeros((1, 100), dtype=torch.bool)
    monitor.update([glai.pack_gates(bits)])
    for epoch, rate in enumerate(rates, start=1):
        bits[0, :rate] ^= True
        monitor.update([glai.pack_gates(bits)])
        assert monitor.history[-1].flip_rate == pytest.approx(rate / 100)
        assert monitor.settled == (epoch >= settled_at)


def test_weight_change():
    monitor = glai.StructureMonitor()
    gates = [glai.pack_gates(torch.zeros(1, 3, dtype=torch.bool))]
    monitor.update(gates, [torch.tensor([3.0, 4.0])])
    monitor.update(gates, [torch.tensor([3.0, 4.5])])
    assert monitor.history[0].weight_change == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": 0.0}, r"threshold must be in \(0, 1\), got 0.0"),
        ({"patience": 0}, "patience must be >= 1"),
        ({"min_epochs": 0}, "min_epochs must be >= 1"),
        ({"max_epochs": 0}, "max_epochs must be >= 1"),
    ],
)
def test_monitor_refuses(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        glai.StructureMonitor(**options)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y: (x[:0], y[:0]), r"x must be a tensor \[N >= 1, D\]"),
        (lambda x, y: (x, y[:-1]), r"got \[300, 2\] and \[299\]"),
        (lambda x, y: (x.tolist(), y), r"got list and \[300\]"),
        (lambda x, y: (x, y + 1), "got 1 to 3"),
        (lambda x, y: (x, y - 1), "got -1 to 1"),
        (lambda x, y: (x, y.double()), r"y must be values \[N=300, C=3\] .* got float64 \[300\]"),
        (lambda x, y: (x.index_fill(0, torch.tensor(3), float("nan")), y), "must be finite"),
        (lambda x, y: (x[:, :1], y), "must read D=1 features"),
    ],
)
def test_train_structure_refuses(change, sentence):
    x, y = change(*blobs())
    with pytest.raises(ValueError, match=sentence):
        glai.train_structure(make_mlp(2, 8, 3), x, y, progress=False)


def test_non_finite_samples_are_refused_with_any_projection():
    x, y = blobs()
    x[5, 1] = float("inf")
    with pytest.raises(ValueError, match="x must be finite"):
        glai.train_structure(make_mlp(2, 8, 3), x, y, glai.InputProjection.identity(2), progress=False)
    with pytest.raises(ValueError, match="class indices or floating values, got torch.complex64"):
        glai.train_structure(make_mlp(2, 8, 3), torch.zeros(300, 2), y.to(torch.complex64))
    with pytest.raises(ValueError, match="batch_size must be an int >= 1"):
        glai.train_structure(make_mlp(2, 8, 3), x, y, batch_size=0)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_integer_dtype(dtype):
    x, y = blobs()
    ids = [
        glai.train_structure(
            make_mlp(2, 8, 3), x, labels, monitor=glai.StructureMonitor(max_epochs=3), progress=False
        ).structure_id
        for labels in (y, y.to(dtype))
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 1.5}, "batch_size must be an int >= 1, got 1.5"),
        ({"learning_rate": -1.0}, "learning_rate must be > 0, got -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be > 0, got nan"),
        ({"seed": None}, "seed must be an int, got None"),
        ({"mlp": make_mlp(2, 8, 3).requires_grad_(False)}, "must have parameters that require gradients"),
    ],
)
def test_settings_of_a_structure_are_refused_by_name(options, sentence):
    x, y = blobs()
    with pytest.raises(ValueError, match=sentence):
        glai.train_structure(**({"mlp": make_mlp(2, 8, 3), "x": x, "y": y, "progress": False} | options))


def test_trains_where_gradients_are_off():
    x, y = blobs()
    ids = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            monitor = glai.StructureMonitor(max_epochs=2)
            selector = glai.train_structure(make_mlp(2, 8, 3), x, y, monitor=monitor, progress=False)
        ids.append(selector.structure_id)
    assert ids[0] == ids[1]


def test_a_used_monitor_is_refused():
    x, y = blobs()
    monitor = glai.StructureMonitor(max_epochs=3)
    glai.train_structure(make_mlp(2, 8, 3), x, y, monitor=monitor, progress=False)
    with pytest.raises(ValueError, match="monitor must be new, got one with 3 epochs"):
        glai.train_structure(make_mlp(2, 8, 3), x, y, monitor=monitor, progress=False)
