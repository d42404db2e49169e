"""The benchmark of a training step: on the CPU, where functions stand in for graphs and a card."""

import json
from unittest import mock

import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy

import glai_native as glai
from glai_bench import clock
from glai_bench.clock import OURS
from glai_bench.cuda import card as cuda_card
from glai_bench.cuda.card import Card
from glai_bench.steps import __main__ as bench_steps
from glai_bench.steps import cuda_step_times, cuda_steps
from glai_bench.steps.torch_forms import full_forms
from glai_native.machine import backend
from glai_native.ops.oracle import gated_matmul_ref
from glai_native.solvers.sgd.cuda import CudaLoop
from solvers.sgd.test_sgd_cuda import captured_on_the_cpu


@pytest.fixture
def times(monkeypatch):
    shapes = (cuda_steps.StepShape(16, 9, 7, 5), 3.0), (cuda_steps.StepShape(9, 3, 12, 8), None)
    monkeypatch.setattr(cuda_step_times, "SHAPES", shapes)
    return cuda_step_times


@pytest.fixture
def card(monkeypatch, threads):
    """The CPU in the place of a card."""
    threads(1)
    monkeypatch.setattr("glai_native.solvers.sgd.cuda.captured", captured_on_the_cpu)
    monkeypatch.setattr(cuda_steps, "captured", captured_on_the_cpu)
    return Card("NVIDIA Test 1 GB", torch.device("cpu"), 1 << 30, 1 << 13, clock._seconds)


@pytest.fixture
def compiled(monkeypatch):
    """What the compiler, which changes nothing, was given."""
    functions = []

    def compiler(function, dynamic):
        assert not dynamic
        functions.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    return functions


def test_the_mlp_has_as_many_parameters():
    for size, mlp in ((512, 193, 50, 10), "50-1774-10"), ((128, 17, 384, 77), "384-1104-77"):
        shape = cuda_steps.StepShape(*size)
        assert shape.mlp == mlp
        assert shape.mlp_parameters == pytest.approx(shape.parameters, rel=1e-4)
        layers = torch.nn.Linear(shape.d, shape.hidden), torch.nn.Linear(shape.hidden, shape.c)
        assert sum(p.numel() for layer in layers for p in layer.parameters()) == shape.mlp_parameters
        selector = glai.PathSelector(
            torch.nn.Sequential(
                torch.nn.Linear(shape.d, shape.p - 1), torch.nn.ReLU(), torch.nn.Linear(shape.p - 1, shape.c)
            )
        )
        estimator = glai.PathEstimator(selector.n_paths, shape.d, shape.c)
        frozen = sum(weight.numel() + bias.numel() for weight, bias in selector.hidden)
        assert estimator.trained_parameters + frozen == shape.parameters


def test_a_batch_lies_in_place_and_takes_turns(card):
    samples = cuda_steps.StepSamples(cuda_steps.StepShape(16, 9, 7, 5), 0.5, card)
    data, places, seen = samples.batches, samples.z.data_ptr(), []
    assert data.z.nbytes + data.gates.words.nbytes > 2 * card.cache_bytes
    for _ in range(len(data.z) // 16):
        torch.testing.assert_close(samples.z, data.z[samples.ids], rtol=0, atol=0)
        assert torch.equal(samples.gates > 0, data.gates[samples.ids].unpack())
        assert torch.equal(samples.y, data.y[samples.ids])
        seen += samples.ids.tolist()
        samples.turn()
    assert sorted(seen) == list(range(len(data.z)))
    assert samples.z.data_ptr() == places


def test_steps_in_torch_are_of_fused_adamw(card, compiled):
    shape = cuda_steps.StepShape(16, 9, 7, 5)
    samples = cuda_steps.StepSamples(shape, 0.5, card)
    made = {name: make() for name, make in cuda_steps.torch_steps(shape, samples).items()}
    assert set(made) == {*cuda_steps.MLPS, *cuda_steps.DENSE}
    assert len(compiled) == 1
    torch.manual_seed(0)
    mlp = torch.nn.Sequential(
        torch.nn.Linear(7, shape.hidden), torch.nn.ReLU(), torch.nn.Linear(shape.hidden, 5)
    )
    optimizer = torch.optim.AdamW(mlp.parameters(), lr=1e-3, weight_decay=0.01)
    for i in range(6):  # four of them the capture's
        loss = cross_entropy(mlp(samples.z), samples.y)
        if i >= 4:
            for name in cuda_steps.MLPS:
                made[name].replay()
                torch.testing.assert_close(made[name].loss, loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_forms_in_torch_compute_the_definition():
    n, p, d, c = 16, 9, 7, 5
    z, gates = torch.randn(n, d), torch.rand(n, p) < 0.5
    for (bias, *weights), run in full_forms(p, d, c).values():
        for weight in (bias, *weights):
            torch.nn.init.normal_(weight)
        beside = torch.cat(weights, -1)  # chunks of paths too
        weight = beside if beside.ndim == 3 else beside.view(d, p, c).permute(1, 0, 2)
        torch.testing.assert_close(
            run(z, gates.float(), bias, *weights), gated_matmul_ref(z, gates, weight, bias)
        )


def test_results(times, card, compiled, capsys):
    kept = []
    results = times.bench_cuda_steps(
        0.0, card=card, keep=lambda found: kept.append(json.dumps(found)), progress=False
    )
    assert not backend.allows_tf32()
    assert [(row["shape"][0], row["precision"]) for row in results["rows"]] == [
        (16, "fp32"), (16, "tf32"), (9, "fp32"), (9, "tf32"),
    ]  # fmt: skip
    assert [one["precision"] for one in results["skipped"]] == ["bf16", "bf16"]
    assert (
        "dtype must be torch.float32 or torch.float64, got torch.bfloat16" in results["skipped"][0]["reason"]
    )
    assert len(compiled) == 4
    for row in results["rows"]:
        assert set(row["ms"]) == {OURS, "MLP", "MLP, compiled", "GLAI, dense, mask, sum", "GLAI, dense, bmm"}
        mlps = [row["ms"]["MLP"], row["ms"]["MLP, compiled"]]
        assert row["ratio"] == pytest.approx(min(mlps) / row["ms"][OURS])
        assert row["ms"][row["best"]] == min(mlps)
        assert row["left_out"] == {}
    assert [row["target"] for row in results["rows"]] == [3.0, 3.0, None, None]
    assert len(kept) == 6
    assert kept[-1] == json.dumps(results)
    results["rows"][0]["ratio"], results["rows"][1]["ratio"] = 2.5, 3.5
    times.print_cuda_steps(results, Console(width=200))
    output = capsys.readouterr().out
    hidden = results["rows"][0]["mlp"]
    for words in (
        "NVIDIA Test 1 GB",
        f"{hidden} at (16,9,7,5)",
        "2.50",
        "3.50",
        "Left out: (16,9,7,5), bf16",
    ):
        assert words in output


@pytest.mark.parametrize(
    ("steps", "factor", "wrong"), [(0, 1, "gradient"), (2, 1, "gradient"), (1, 1.5, "change")]
)
def test_our_step_is_held_to_float64(times, card, compiled, monkeypatch, steps, factor, wrong):
    class Wrong(CudaLoop):
        def replay(self):
            for _ in range(steps):
                super().replay()
            self._trained[0].data.mul_(factor)

    monkeypatch.setattr(cuda_steps, "CudaLoop", Wrong)
    results = times.bench_cuda_steps(0.0, card=card, progress=False)
    assert results["rows"] == []
    assert (
        f"computes something else than a step in float64: the {wrong} of weight"
        in results["skipped"][0]["reason"]
    )


def test_what_fails_is_left_out(times, card, capsys, monkeypatch):
    monkeypatch.setattr(torch, "compile", mock.Mock(side_effect=OSError("no compiler\nhere")))
    results = times.bench_cuda_steps(0.0, card=card, progress=False)
    for row in results["rows"]:
        assert row["left_out"] == {"MLP, compiled": "OSError: no compiler"}
        assert row["best"] == "MLP"
    times.print_cuda_steps(results, Console(width=200))
    assert "Left out: MLP, compiled, (9,3,12,8), tf32: OSError: no compiler" in capsys.readouterr().out


def test_a_loss_must_fall(times, card, compiled, monkeypatch):
    monkeypatch.setattr(cuda_steps, "RATE", 0.0)
    shape = cuda_steps.StepShape(16, 9, 7, 5)
    step = cuda_steps.torch_steps(shape, cuda_steps.StepSamples(shape, 0.5, card))[cuda_steps.MLP]()
    with pytest.raises(RuntimeError, match="the loss went from .* in 20 steps"):
        step.require_falling_loss()


def test_without_an_mlp_there_is_no_row(times, card, compiled, monkeypatch):
    def refuse(shape, samples):
        return {"MLP": mock.Mock(side_effect=RuntimeError("out of memory"))}

    monkeypatch.setattr(times, "torch_steps", refuse)
    results = times.bench_cuda_steps(0.0, card=card, progress=False)
    assert results["rows"] == []
    assert (
        "no MLP is left to compare with: {'MLP': 'RuntimeError: out of memory'}"
        in results["skipped"][0]["reason"]
    )


def test_the_command(times, card, compiled, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Card, "here", classmethod(lambda cls: card))
    file = tmp_path / "results" / "sgd.json"
    options = ["--device", "cuda", "--quick", "--seconds", "0", "--json", "--output", str(file)]
    assert bench_steps.main(options) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads(file.read_text())
    assert "ratio: best MLP / ours" in captured.err
    assert "GLAI, dense, mask, sum" in captured.err  # in 80 columns
    monkeypatch.setattr("glai_bench.steps.cuda_step_times.SHAPES", ())
    assert bench_steps.main(options) == 1


def test_without_a_gpu_it_is_one_sentence(times, capsys, monkeypatch):
    info = {**glai.build_info(), "cuda_available": False, "cuda_reason": "no NVIDIA driver"}
    monkeypatch.setattr(cuda_card, "build_info", lambda: info)
    assert bench_steps.main(["--device", "cuda"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "python -m glai_bench.steps: --device cuda: no GPU to run on: no NVIDIA driver\n"
    assert captured.out == ""


def test_the_command_on_the_cpu(threads, monkeypatch, tmp_path, capsys):
    threads(1)  # restored after
    monkeypatch.setattr(bench_steps, "FULL", (((8, 5, 4, 3), 4.0),))
    monkeypatch.setattr(bench_steps, "DIRECTIONS", (((8, 5, 4, 3), None),))
    monkeypatch.setattr(bench_steps, "SAMPLES", 128)
    file = tmp_path / "sgd.json"
    assert bench_steps.main(["--threads", "1", "--seconds", "0", "--json", "--output", str(file)]) == 0
    captured = capsys.readouterr()
    results = json.loads(captured.out)
    assert results == json.loads(file.read_text())
    assert [row["directions"] for row in results["rows"]] == [False, True]
    assert "(target 4)" in captured.err


@pytest.mark.gpu
def test_on_a_card(times, monkeypatch):
    monkeypatch.setattr(torch, "compile", mock.Mock(side_effect=RuntimeError("takes seconds")))
    results = times.bench_cuda_steps(0.0, progress=False)
    assert [row["precision"] for row in results["rows"]] == ["fp32", "tf32"] * 2, results["skipped"]
    for row in results["rows"]:
        assert list(row["left_out"]) == ["MLP, compiled"]
        assert min(row["ms"].values()) > 0
