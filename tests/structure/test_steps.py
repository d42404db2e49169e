"""The native steps on a selector's network: PyTorch's numbers, equal bits for any number of threads, interrupts."""

import copy

import pytest
import torch
from torch import nn

import glai_native as glai
import glai_native._native as _native
from conftest import make_mlp
from glai_native.structure import steps as structure_steps
from glai_native.structure.settling import _pattern
from glai_native.structure.steps import Batches, NativeSteps, TorchSteps, is_plain, network_steps

D, C = 9, 5


def make_data(n, *, values=False, weighted=False, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, D, generator=generator, dtype=torch.float64)
    y = torch.randn(n, C, generator=generator, dtype=torch.float64)
    weight = torch.rand(n, generator=generator, dtype=torch.float64)
    return z.to(dtype), y.to(dtype) if values else y.argmax(1), weight.to(dtype) if weighted else None


def make_network(*widths, dtype=torch.float64):
    """One of whose first units is never on, whatever it reads."""
    torch.manual_seed(1)
    mlp = make_mlp(D, *widths, C).to(dtype)
    with torch.no_grad():
        mlp[0].weight[0] = 0
        mlp[0].bias[0] = -1
    return mlp


def orders(n, epochs):
    generator = torch.Generator().manual_seed(3)
    return [torch.randperm(n, generator=generator) for _ in range(epochs)]


def run(kind, mlp, data, batch, epochs):
    n = len(data[0])
    steps = kind(mlp, min(batch, n), 1e-2)
    return [steps.run_epoch([Batches(*data, order)], n) for order in orders(n, epochs)]


@pytest.mark.parametrize("widths", [(8,), (33, 7), (5, 40, 64)])
@pytest.mark.parametrize(("values", "weighted"), [(False, False), (False, True), (True, False), (True, True)])
def test_equals_pytorch_after_a_hundred_steps(widths, values, weighted):
    data = make_data(230, values=values, weighted=weighted)
    ours, theirs = make_network(*widths), make_network(*widths)
    losses = run(NativeSteps, ours, data, 18, 8)  # 13 steps, the last of 14 samples
    expected = run(TorchSteps, theirs, data, 18, 8)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().max() <= 1e-10 * b.abs().max(), name
    assert losses == pytest.approx(expected, rel=1e-10)
    start = make_network(*widths)
    assert torch.equal(ours[0].weight[0], start[0].weight[0])  # no gradient: Adam leaves it alone


@pytest.mark.parametrize("rest", [1, 31, 32, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_last_batches_of_any_size(rest, dtype):
    data = make_data(64 + rest, dtype=dtype)
    ours, theirs = make_network(31, dtype=dtype), make_network(31, dtype=dtype)
    run(NativeSteps, ours, data, 64, 3)
    run(TorchSteps, theirs, data, 64, 3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(
            a,
            b,
            rtol=1e-10 if dtype == torch.float64 else 1e-4,
            atol=1e-12 if dtype == torch.float64 else 1e-5,
        )


@pytest.mark.parametrize("n", [1, 2, 7])
def test_fewer_samples_than_a_batch(n):
    data = make_data(n)
    ours, theirs = make_network(6, 3), make_network(6, 3)
    assert run(NativeSteps, ours, data, 128, 5) == pytest.approx(
        run(TorchSteps, theirs, data, 128, 5), rel=1e-10
    )
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().max() <= 1e-10 * b.abs().max()


@pytest.mark.parametrize(("d", "h", "c"), [(1, 1, 1), (1, 5, 1), (3, 1, 2), (785, 40, 1), (300, 97, 26)])
def test_narrow_and_wide_layers(d, h, c):
    generator = torch.Generator().manual_seed(2)
    z, y = (torch.randn(300, k, generator=generator, dtype=torch.float64) for k in (d, c))
    torch.manual_seed(4)
    ours = make_mlp(d, h, c).double()
    theirs = copy.deepcopy(ours)
    # strided rows, as of a part of a table's columns
    wide = torch.zeros(300, d + 3, dtype=torch.float64)
    wide[:, :d] = z
    run(NativeSteps, ours, (wide[:, :d], y, None), 290, 2)
    run(TorchSteps, theirs, (z, y, None), 290, 2)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().max() <= 1e-10 * b.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_any_number_of_threads(dtype):
    data = make_data(1200, dtype=dtype)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            mlp = make_network(150, 70, dtype=dtype)
            run(NativeSteps, mlp, data, 512, 2)
            results.append(torch.cat([p.detach().flatten() for p in mlp.parameters()]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("isa", _native.cpu_isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set(isa, dtype):
    data = make_data(150, dtype=dtype)
    theirs = make_network(70, 20)
    run(TorchSteps, theirs, make_data(150), 64, 4)
    before = _native.cpu_isa()
    try:
        _native.force_cpu_isa(isa)
        ours = make_network(70, 20, dtype=dtype)
        run(NativeSteps, ours, data, 64, 4)
    finally:
        _native.force_cpu_isa(before)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().max() <= (1e-10 if dtype == torch.float64 else 1e-3) * b.abs().max()


def spoilt(mlp):
    mlp[1].register_forward_hook(lambda module, inputs, output: output)
    return mlp


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("change", "plain"),
    [
        (lambda mlp: mlp, True),
        (spoilt, False),
        (lambda mlp: nn.Sequential(mlp[0], mlp[1], nn.Linear(8, C, bias=False)), False),
        (lambda mlp: nn.Sequential(Doubled(D, 8), mlp[1], mlp[2]), False),
        (lambda mlp: nn.Sequential(mlp[0].requires_grad_(False), mlp[1], mlp[2]), False),
        (lambda mlp: nn.Sequential(nn.utils.parametrizations.weight_norm(mlp[0]), mlp[1], mlp[2]), False),
        (lambda mlp: mlp.half(), True),
    ],
)
def test_networks_that_are_more_than_their_layers_are_pytorchs(change, plain):
    mlp = change(make_mlp(D, 8, C))
    assert is_plain(mlp) == plain
    z, *_ = make_data(20, dtype=next(mlp.parameters()).dtype)
    native = plain and z.dtype != torch.float16
    assert isinstance(network_steps(mlp, z, 8, 1e-3), NativeSteps if native else TorchSteps)


def test_tied_layers_are_pytorchs():
    mlp = make_mlp(D, 8, 8, C)
    mlp[2].weight = nn.Parameter(torch.randn(8, 8))
    tied = nn.Sequential(mlp[0], nn.ReLU(), mlp[2], nn.ReLU(), mlp[2], nn.ReLU(), mlp[4])
    assert is_plain(mlp)
    assert not is_plain(tied)


@pytest.mark.parametrize("widths", [(40,), (33, 7)])
def test_the_monitor_sees_what_it_saw_of_pytorchs_steps(widths, monkeypatch):
    x, y, weight = make_data(300, weighted=True)
    histories = []
    for kind in (NativeSteps, TorchSteps):
        monkeypatch.setattr(structure_steps, "NativeSteps", kind)
        monitor = glai.StructureMonitor(max_epochs=6, min_epochs=6)
        glai.train_structure(
            make_network(*widths), x, y, monitor=monitor, batch_size=50, sample_weight=weight, progress=False
        )
        histories.append(monitor.history)
    for ours, theirs in zip(*histories, strict=True):
        assert (ours.epoch, ours.flip_rate, ours.oui) == (theirs.epoch, theirs.flip_rate, theirs.oui)
        assert ours.weight_change == pytest.approx(theirs.weight_change, rel=1e-8)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-8)


def test_an_interrupt_leaves_the_last_step_in_the_network(monkeypatch):
    data = make_data(400)
    mlp, whole = make_network(8), make_network(8)
    steps = NativeSteps(mlp, 10, 1e-2)
    native, calls = _native.structure_steps, []

    def interrupted(**arguments):
        if calls:
            raise KeyboardInterrupt
        calls.append(len(arguments["order"]) // 10)
        native(**arguments)

    monkeypatch.setattr(structure_steps._native, "structure_steps", interrupted)
    (order,) = orders(400, 1)
    with pytest.raises(KeyboardInterrupt):
        steps.run_epoch([Batches(*data, order)], 400)
    monkeypatch.undo()
    taken = order[: calls[0] * 10]
    NativeSteps(whole, 10, 1e-2).run_epoch([Batches(*data, taken)], len(taken))
    for a, b in zip(mlp.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_a_callback_changes_is_trained_on():
    data = make_data(50)
    mlp, other = make_network(8), make_network(8)
    results = []
    for kind, network in ((NativeSteps, mlp), (TorchSteps, other)):
        steps = kind(network, 16, 1e-2)
        first, second = orders(50, 2)
        steps.run_epoch([Batches(*data, first)], 50)
        with torch.no_grad():
            network[2].weight.mul_(0.5)
        results.append(steps.run_epoch([Batches(*data, second)], 50))
    assert results[0] == pytest.approx(results[1], rel=1e-10)


def given(n=20, batch=8):
    z, y, _ = make_data(n)
    k = 8 * (D + 1) + C * 9
    new = lambda *shape: torch.zeros(shape, dtype=torch.float64)  # noqa: E731
    return {
        "x": z, "targets": y, "sample_weight": None, "order": torch.arange(n), "parameters": new(k),
        "exp_avg": new(k), "exp_avg_sq": new(k), "step": 0, "learning_rate": 1e-3, "beta1": 0.9,
        "beta2": 0.999, "eps": 1e-8, "batch_x": new(batch, D), "hidden": [new(batch, 8)],
        "hidden_words": [torch.zeros(batch, 1, dtype=torch.int32)], "output": new(batch, C),
        "gradient": new(k), "row_losses": new(batch), "losses": new(-(-n // batch)), "threads": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"order": torch.tensor([0, 20] + [1] * 18)}, r"order must be samples in \[0, N=20\), got 20"),
        ({"targets": torch.full((20,), C)}, r"targets must be classes in \[0, C=5\), got 5"),
        ({"parameters": torch.zeros(7, dtype=torch.float64)}, r"parameters must be float64 \[K=125\]"),
        ({"hidden": []}, "hidden_words must be as many as hidden, 0, got 1"),
        ({"hidden": [], "hidden_words": []}, "hidden must hold one layer at least"),
        ({"hidden_words": [torch.zeros(8, 2, dtype=torch.int32)]}, r"hidden_words\[0\] must be int32 \[B=8"),
        ({"losses": torch.zeros(1, dtype=torch.float64)}, r"losses must be float64 \[steps=3\]"),
        ({"x": torch.zeros(20, D, dtype=torch.float16)}, r"x must be float32 or float64"),
        ({"step": -1}, "step must be >= 0, got -1"),
    ],
)
def test_arguments_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        _native.structure_steps(**(given() | wrong))


def test_arrays_lie_apart():
    arguments = given()
    arguments["hidden"] = [arguments["batch_x"][:, :8]]
    with pytest.raises(ValueError, match=r"hidden\[0\] must not share memory with batch_x"):
        _native.structure_steps(**arguments)
    arguments = given()
    arguments["gradient"] = arguments["parameters"]
    with pytest.raises(ValueError, match="parameters must not share memory with gradient"):
        _native.structure_steps(**arguments)


def test_the_pattern_is_that_of_the_trained_network():
    data = make_data(100)
    mlp = make_network(33, 7)
    run(NativeSteps, mlp, data, 32, 2)
    (first, second), _ = _pattern(mlp, data[0])
    hidden = mlp[0](data[0])
    assert torch.equal(first.unpack(), hidden > 0)
    assert torch.equal(second.unpack(), mlp[2](hidden.relu()) > 0)
