"""The training loop's part on a GPU takes the native loop's steps; without one, a stand-in for the graph does each step
anew."""

import contextlib
from unittest import mock

import pytest
import torch

from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.cuda import CudaLoop, captured
from glai_native.solvers.sgd.native import NativeLoop, SgdSettings
from glai_native.solvers.sgd.training import train_estimator
from solvers.sgd.test_sgd import C, make_estimator, make_samples

N = 40
MODES = {"gradients on": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def captured_on_the_cpu(step, device):
    """What a graph would do without Python, Python does."""
    names = {name: mock.DEFAULT for name in ("CUDAGraph", "Stream", "current_stream")}
    with (
        mock.patch.multiple("torch.cuda", **names),
        mock.patch("torch.cuda.stream", contextlib.nullcontext),
        mock.patch("torch.cuda.graph", return_value=contextlib.nullcontext()),
    ):
        captured(step, device)
    return mock.Mock(replay=step)


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def place(request, monkeypatch):
    """Where the loop runs: a function that puts a tensor, gates or a module there."""
    if request.param == "gpu":
        return lambda t: t.to("cuda")
    monkeypatch.setattr("glai_native.solvers.sgd.cuda.captured", captured_on_the_cpu)
    monkeypatch.setattr("glai_native.solvers.sgd.training.NativeLoop", CudaLoop)
    return lambda t: t


def make_batches(kind, weighted=False):
    x, gates, y = make_samples(n=N)
    targets = y if kind == "full" else torch.nn.functional.one_hot(y, C).double()
    return x, gates, targets, torch.linspace(0.5, 1.5, N, dtype=x.dtype) if weighted else None


def make_data(x, gates, targets, weight):
    return Samples(x, targets, C, weight, gates=gates)


@pytest.mark.parametrize("kind", ["full", "directions"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("made_within", [False, True])
def test_takes_the_steps_of_the_native_loop(place, kind, mode, made_within):
    settings = SgdSettings("", 16, 1e-2, 0.1, average=kind == "full", seed=0)
    batches = make_batches(kind, weighted=True)
    given = make_data(*batches)
    native = NativeLoop(make_estimator(kind), given, settings)
    with MODES[mode]() if made_within else contextlib.nullcontext():
        estimator = place(make_estimator(kind)).requires_grad_(False)
        data = make_data(*(place(part) for part in batches))
        before = [parameter.clone() for parameter in estimator.parameters()]
    with MODES[mode]():
        ours = CudaLoop(estimator, data, settings)
        for seed in range(2):  # batches of 16, 16 and 8
            order, shares = torch.randperm(N, generator=torch.Generator().manual_seed(seed)), []
            loss = ours.run_epoch([(data, order)], N, shares.append)
            theirs = native.run_epoch([(given, order)], N, lambda share: None)
            assert loss == pytest.approx(theirs, rel=1e-10)
            assert shares == [1.0]
    torch.testing.assert_close(ours.result().cpu(), native.result(), rtol=1e-10, atol=1e-12)
    assert ours.step == 6
    for parameter, value in zip(estimator.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


@pytest.mark.parametrize("mode", MODES)
def test_a_training_that_stops_goes_on(place, mode, tmp_path):
    x, gates, y, _ = make_batches("full")
    data = [place(x), place(gates), place(y)]
    settings = {"batch_size": 16, "learning_rate": 0.1, "validation": data, "progress": False}
    with MODES[mode]():
        whole, parts = place(make_estimator("full")), place(make_estimator("full"))
        history = train_estimator(whole, *data, epochs=4, **settings)
        for epochs in (2, 4):
            again = train_estimator(parts, *data, epochs=epochs, checkpoint=tmp_path / "c", **settings)
    assert torch.equal(whole.weight, parts.weight)
    assert [epoch.loss for epoch in again] == [epoch.loss for epoch in history]


def test_a_loss_that_is_not_finite_stops_it(place):
    x, gates, *_ = make_batches("full")
    estimator = place(make_estimator("full"))
    before = estimator.weight.clone()
    targets = place(torch.full((N, C), 1e180, dtype=x.dtype))
    with pytest.raises(FloatingPointError, match="the loss is inf at or before step 1 of epoch 1"):
        train_estimator(estimator, place(x), place(gates), targets, progress=False)
    assert torch.equal(estimator.weight, before)


def test_takes_a_held_batch_as_often_as_it_is_told(place):
    x, gates, y, _ = make_batches("full")
    settings = SgdSettings("cross_entropy", 16, 1e-2, 0.1, average=False, seed=0)
    given = Samples(x, y, C, gates=gates)
    native = NativeLoop(make_estimator("full"), given, settings)
    ours = CudaLoop(
        place(make_estimator("full")), Samples(place(x), place(y), C, gates=place(gates)), settings
    )
    ids = torch.arange(3, 19)
    ours.hold(place(ids))
    for _ in range(2):
        ours.replay()
        native.run_epoch([(given, ids)], len(ids), lambda share: None)
    torch.testing.assert_close(ours.result().cpu(), native.result(), rtol=1e-10, atol=1e-12)
