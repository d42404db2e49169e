"""The native loop where there is little: one output or two, and samples of which an epoch is several passes."""

import pytest
import torch

import glai_native as glai
from glai_native.machine.ranks import Ranks
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.group import GroupLoop
from glai_native.solvers.sgd.native import NativeLoop, SgdSettings
from glai_native.solvers.sgd.solving import EPOCH_STEPS, STEPS, default_epochs
from glai_native.solvers.sgd.training import train_on

P, D, C = 33, 7, 5


def make_samples(n):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, D, generator=generator, dtype=torch.float64)
    bits = torch.rand(n, P, generator=generator) < 0.5
    return x, glai.pack_gates(bits), torch.randint(0, C, (n,), generator=generator)


def make_estimator():
    generator = torch.Generator().manual_seed(1)
    estimator = glai.PathEstimator(P, D, C, dtype=torch.float64)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.1)
    return estimator


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.1, 0.6])
@pytest.mark.parametrize(
    ("n_paths", "width", "outputs"), [(5, 3, 1), (97, 9, 2), (70, 3, 8), (513, 40, 1), (64, 130, 2)]
)
def test_steps_of_few_outputs(n_paths, width, outputs, density, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, width, generator=generator, dtype=dtype)
    bits = torch.rand(150, n_paths, generator=generator) < density
    bits[:, -1] = True
    values = torch.randn(150, outputs, generator=generator, dtype=dtype)
    data = Samples(x, values, outputs, gates=glai.pack_gates(bits))
    settings = SgdSettings("squared", 70, 1e-2, 0.0, False, 0)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            loop = NativeLoop(glai.PathEstimator(n_paths, width, outputs, dtype=dtype), data, settings)
            losses = [loop.run_epoch([(data, torch.arange(150))], 150, lambda share: None) for _ in range(3)]
            results.append((loop.result(), losses))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    ranks = GroupLoop(glai.PathEstimator(n_paths, width, outputs, dtype=dtype), data, settings, Ranks("test"))
    expected = [ranks.run_epoch([(data, torch.arange(150))], 150, lambda share: None) for _ in range(3)]
    close = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(results[0][0], ranks.result(), **close)
    assert results[0][1] == pytest.approx(expected, rel=1e-9 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize(("n", "batch"), [(40, 512), (40, 16), (700, 512)])
def test_an_epoch_of_few_samples_is_several_passes(n, batch, tmp_path):
    epochs, passes = default_epochs(n, batch)
    rows = min(n, batch)
    steps = -(-passes * n // rows)
    assert passes > 1
    assert EPOCH_STEPS <= steps < 2 * EPOCH_STEPS
    assert epochs * steps >= STEPS
    x, gates, y = make_samples(n)
    data = Samples(x, y, C, gates=gates)

    def train(epochs, **options):
        estimator = make_estimator()
        seen = []
        history = train_on(
            estimator, data, data[: n // 4], epochs=epochs, batch_size=batch, passes=passes, progress=False,
            on_epoch=lambda epoch: seen.append(epoch.epoch), **options,
        )  # fmt: skip
        return estimator.weight.detach().clone(), [epoch.loss for epoch in history], seen

    whole, losses, seen = train(3)
    assert seen == [1, 2, 3]
    train(2, checkpoint=tmp_path / "c")
    resumed, again, seen = train(3, checkpoint=tmp_path / "c")
    assert seen == [3]
    assert again == losses
    assert torch.equal(resumed, whole)
    with pytest.raises(ValueError, match="another training"):
        train_on(
            make_estimator(), data, data[: n // 4], epochs=4, batch_size=batch, progress=False,
            checkpoint=tmp_path / "c",
        )  # fmt: skip
    settings = SgdSettings("cross_entropy", batch, 1e-2, 0.0, True, 0, passes)
    order = torch.cat([torch.randperm(n, generator=torch.Generator().manual_seed(i)) for i in range(passes)])
    loops = [
        NativeLoop(make_estimator(), data, settings),
        GroupLoop(make_estimator(), data, settings, Ranks("test")),
    ]
    found = [loop.run_epoch([(data, order)], len(order), lambda share: None) for loop in loops]
    assert loops[0].step == loops[1].step == steps
    assert found[0] == pytest.approx(found[1], rel=1e-10)
    torch.testing.assert_close(loops[0].result(), loops[1].result(), rtol=1e-9, atol=1e-11)


def test_epochs_that_are_told_are_one_pass_each():
    assert default_epochs(200_000, 512) == (10, 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator)
    y = (x[:, 0] > 0).long()
    selector = glai.PathSelector(
        torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    )
    told = glai.fit(selector, x, y, solver="sgd", epochs=7, patience=7, progress=False)
    assert [epoch.epoch for epoch in told.history] == [*range(1, 8)]
