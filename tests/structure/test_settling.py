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
        ({"threshold": 0.0}, r"threshold must be in \(0, 1\) or None, got 0.0"),
        ({"patience": 0}, "patience must be >= 1"),
        ({"min_epochs": 0}, "min_epochs must be >= 1"),
        ({"max_epochs": 0}, "max_epochs must be >= 1"),
        ({"validation_patience": 0}, "validation_patience must be >= 1"),
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


def stale_after(losses, scores, flips=10):
    """The epochs after which a monitor of patience 3 is stale, its pattern half as restless as in the first."""
    bits = torch.zeros(100, 1, dtype=torch.bool)
    monitor = glai.StructureMonitor(threshold=0.01, validation_patience=3, indicator=False)
    monitor.update([glai.pack_gates(bits)])
    found = []
    for epoch, validation in enumerate(zip(losses, scores, strict=True)):
        bits = bits.clone()
        rows = torch.arange(20 if epoch == 0 else flips) + 20 * (epoch % 5)
        bits[rows % 100] ^= True
        monitor.update([glai.pack_gates(bits)], validation=validation)
        assert monitor.should_stop == monitor.stale
        found.append(monitor.stale)
    return found.index(True) + 1 if True in found else None


def test_a_structure_is_stale_where_held_out_samples_find_nothing_better():
    falling, flat = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5], [1.0, 0.5, 0.5, 0.6, 0.7, 0.8]
    level = [0.9] * 6
    assert stale_after(falling, level) is None
    assert stale_after(flat, level) == 5  # three epochs after the second
    assert stale_after(flat, [0.5, 0.6, 0.6, 0.7, 0.7, 0.7]) is None  # the score went on
    assert stale_after(flat, level, flips=20) is None  # units go on flipping as they did
    assert stale_after([float("nan")] * 6, [float("nan")] * 6) is None  # nobody was held out


def test_held_out_samples_say_when_to_stop_and_train_nothing():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 6, generator=generator), torch.randint(0, 3, (200,), generator=generator)
    others = torch.randn(60, 6, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    runs = {}
    for name, validation in {"none": None, "noise": others, "few": (others[0][:19], others[1][:19])}.items():
        monitor = glai.StructureMonitor(max_epochs=40, threshold=1e-6, validation_patience=4)
        selector = glai.train_structure(
            make_mlp(6, 32, 3),
            x,
            y,
            monitor=monitor,
            learning_rate=1e-2,
            validation=validation,
            progress=False,
        )
        runs[name] = (monitor, selector)
    assert runs["noise"][0].stale
    assert len(runs["noise"][0].history) < 40
    for name in ("none", "few"):
        assert len(runs[name][0].history) == 40
        assert runs[name][1].structure_id == runs["none"][1].structure_id
    with pytest.raises(ValueError, match=r"validation must be \(x, y\), .* got 1 of them"):
        glai.train_structure(make_mlp(6, 32, 3), x, y, validation=others[:1], progress=False)
    last = len(runs["noise"][0].history)
    losses = [epoch.loss for epoch in runs["none"][0].history[:last]]
    assert [epoch.loss for epoch in runs["noise"][0].history] == losses


def test_a_pattern_without_a_threshold_is_never_settled():
    bits = torch.zeros(100, 1, dtype=torch.bool)
    monitor = glai.StructureMonitor(threshold=None, min_epochs=1, max_epochs=9, indicator=False)
    for _ in range(9):
        assert not monitor.settled
        monitor.update([glai.pack_gates(bits)])
    assert not monitor.should_stop
    monitor.update([glai.pack_gates(bits)])
    assert monitor.should_stop  # for its epochs


def test_a_loss_that_hardly_falls_is_no_better():
    falling = [1.0, 0.995, 0.994, 0.993, 0.992, 0.991]
    assert stale_after(falling, [0.9] * 6) == 4
    assert stale_after([1.0, 0.995, 0.989, 0.988, 0.987, 0.986], [0.9] * 6) == 6  # the third was


def test_long_trainings_wait_longer():
    losses = [0.9**i for i in range(20)] + [1.0] * 10
    assert stale_after(losses, [0.9] * 30) == 25  # a fifth of 25, not three
