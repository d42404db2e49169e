"""The benchmark computes what it says; how fast is no business of a test."""

import json

import pytest
import torch

from accuracy import assert_accurate
from glai_native import benchmark
from glai_native import reference as ref
from glai_native.baselines import forward_baselines, input_grad_baselines, weight_grad_baselines
from glai_native.cases import Shape, make_case
from glai_native.cli import main

SMALL = (Shape(33, 9, 12, 7),)


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_every_baseline_computes_the_op(density, monkeypatch):
    monkeypatch.setattr(
        "glai_native.baselines.CHUNK_VALUES", 33 * 7 * 4
    )  # several chunks, the last one short
    case = make_case(SMALL[0], density)
    x, w, dy = case.x.double(), case.weight.double(), case.dy.double()
    expected = {
        forward_baselines: lambda x, w, dy: ref.gated_matmul_ref(x, case.gates, w),
        weight_grad_baselines: lambda x, w, dy: ref.gated_matmul_weight_grad_ref(x, case.gates, dy),
        input_grad_baselines: lambda x, w, dy: ref.gated_matmul_input_grad_ref(dy, case.gates, w),
    }
    for baselines, reference in expected.items():
        calls = baselines(case)
        assert len(calls) >= 4 + (density == 1)
        for call in calls.values():
            ones = [torch.ones_like(t) for t in (x, w, dy)]
            terms = reference(x.abs(), w.abs(), dy.abs())
            assert_accurate(call(), reference(x, w, dy), terms, reference(*ones) + 1)


def test_results(monkeypatch, capsys):
    for name in ("SHAPES", "QUICK_SHAPES"):
        monkeypatch.setattr(benchmark, name, SMALL)
    before = torch.get_num_threads()
    assert main(["bench", "--quick", "--threads", "1", "--seconds", "0", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert torch.get_num_threads() == before
    assert results["machine"]["threads"] == 1
    assert len(results["rows"]) == 3 * len(benchmark.QUICK_DENSITIES)
    for row in results["rows"]:
        best = min(row["baselines_ms"].values())
        assert row["baselines_ms"][row["best"]] == best
        assert row["ratio"] == pytest.approx(best / row["ours_ms"])
    assert main(["bench", "--quick", "--seconds", "0"]) == 0
    assert "geometric mean" in capsys.readouterr().out


def test_a_wrong_baseline_is_not_timed(monkeypatch):
    monkeypatch.setattr(benchmark, "forward_baselines", lambda case: {"wrong": lambda: torch.ones(33, 7)})
    with pytest.raises(RuntimeError, match="'wrong' computes something else"):
        list(benchmark._bench_case(make_case(SMALL[0], 0.5), 0))


def test_measure_takes_turns():
    order = []
    medians = benchmark.measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0)
    assert set(medians) == {"a", "b"}
    assert order[2:6] == ["a", "b", "b", "a"]  # after one warm-up each, each round starts with the next
