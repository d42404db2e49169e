"""The benchmark computes what it says; how fast is no business of a test."""

import json
from pathlib import Path

import pytest
import torch

import glai_native as glai
import glai_native._native as _native
from accuracy import assert_accurate
from glai_bench import clock as bench_clock
from glai_bench import report
from glai_bench.explaining import explain_form
from glai_bench.ops import grid as ops_grid
from glai_bench.ops import real_gates, targets
from glai_bench.ops.cases import GIANT, SHAPES, Shape, make_case
from glai_bench.ops.torch_forms import forward_baselines, input_grad_baselines, weight_grad_baselines
from glai_native.cli.main import main
from glai_native.ops import oracle as ref

SMALL = Shape(33, 9, 12, 10)
pytestmark = pytest.mark.usefixtures("further_commands")


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.delenv("GLAI_DATA", raising=False)


@pytest.fixture
def quick_machine(monkeypatch):
    """The machine's own rates from tiny products and few calls."""
    monkeypatch.setattr(bench_clock, "SGEMM_SIZE", 32)
    monkeypatch.setattr(ops_grid, "instruction_peak", lambda isa, operands: 90.0)
    monkeypatch.setattr(ops_grid, "call_cost", lambda: bench_clock.call_cost(batches=3, calls=5))


def row(op="forward", shape=SHAPES[0], density=0.5, ratio=2.0, **others):
    size = [shape.n, shape.p, shape.d, shape.c]
    return {
        "op": op,
        "shape": size,
        "gates": "independent",
        "density": density,
        "deviation": 0.5,
        "threads": 1,
        "ours_ms": 1.0,
        "baselines_ms": {"dense": ratio},
        "best": "dense",
        "ratio": ratio,
        "peak_fraction": 0.5,
        **others,
    }


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_every_baseline_computes_the_op(density, monkeypatch):
    # Chunks of two sizes, the last ones short.
    monkeypatch.setattr("glai_bench.ops.torch_forms.CHUNK_VALUES", (33 * 10 * 2, 33 * 10 * 4))
    case = make_case(SMALL, density)
    x, w, dy = case.x.double(), case.weight.double(), case.dy.double()
    expected = {
        forward_baselines: lambda x, w, dy: ref.gated_matmul_ref(x, case.gates, w),
        weight_grad_baselines: lambda x, w, dy: ref.gated_matmul_weight_grad_ref(x, case.gates, dy),
        input_grad_baselines: lambda x, w, dy: ref.gated_matmul_input_grad_ref(dy, case.gates, w),
    }
    for baselines, reference in expected.items():
        calls = baselines(case)
        assert len(calls) >= 7 + (density == 1)
        ones = [torch.ones_like(t) for t in (x, w, dy)]
        terms = reference(x.abs(), w.abs(), dy.abs())
        for call in (*calls.values(), *calls.values()):  # again: buffers and kept copies are of use twice
            assert_accurate(call(), reference(x, w, dy), terms, reference(*ones) + 1)


@pytest.mark.usefixtures("no_data", "quick_machine")
def test_results(capsys):
    before = torch.get_num_threads()
    arguments = ["bench", "--quick", "--shape", "33,9,12,10", "--threads", "1", "2", "--seconds", "1e-9"]
    assert main([*arguments, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert torch.get_num_threads() == before
    machine = results["machine"]
    assert machine["threads"] == [1, 2]
    assert results["settings"] == {
        "quick": True,
        "threads": [1, 2],
        "seconds": 1e-9,
        "shapes": ["(33,9,12,10)"],
    }
    assert set(machine["sgemm_gfma_per_s"]) == set(machine["sgemm_scaling"]) == {"1", "2"}
    assert machine["sgemm_scaling"]["1"] == 1
    assert machine["call"]["extra_us"] == machine["call"]["op_us"] - machine["call"]["binding_us"]
    assert len(results["rows"]) == 2 * 3 * len(ops_grid.QUICK_DENSITIES)
    for one in results["rows"]:
        best = min(one["baselines_ms"].values())
        assert one["baselines_ms"][one["best"]] == best
        assert one["ratio"] == pytest.approx(best / one["ours_ms"])
        assert one["shape"] == [33, 9, 12, 10]
        assert one["gates"] == "independent"
        assert 0 <= one["deviation"] <= 0.5
        assert one["peak_fraction"] > 0
        assert (one["bf16_ratio"] is None) == (one["density"] < 0.25)
    assert {left_out["gates"] for left_out in results["skipped"]} == {s.name for s in real_gates.SOURCES}
    assert "GLAI_DATA is not set" in results["skipped"][0]["reason"]
    assert main([*arguments, "--all"]) == 0
    output = capsys.readouterr().out
    for words in (
        "forward, C = 10",
        "weight gradient",
        "density 1",
        "peak, 0.25",
        "our fp32 / our bf16",
        "every row",
        "Left out",
        "Cells under 1",
    ):
        assert words in output


@pytest.mark.usefixtures("no_data")
def test_usage_errors(capsys):
    for options in (["--threads", "0"], ["--shape", "1,2,3"], ["--shape", "1,2,3,0"], ["--shape", "a"]):
        with pytest.raises(SystemExit) as stop:
            main(["bench", *options])
        assert stop.value.code == 2
    assert "four positive integers" in capsys.readouterr().err


def test_a_wrong_baseline_is_not_timed(monkeypatch, threads):
    monkeypatch.setattr(ops_grid, "forward_baselines", lambda case: {"wrong": lambda: torch.ones(33, 10)})
    with pytest.raises(RuntimeError, match="'wrong' computes something else"):
        list(ops_grid._bench_case(make_case(SMALL, 0.5), [1], 0, {1: 1.0}))


class Clock:
    """Stands in for the time module; calls made by :meth:`call` take the seconds they are given."""

    def __init__(self):
        self.now = 0.0
        self.order = []

    def perf_counter(self):
        return self.now

    def call(self, name, *seconds):
        left = list(seconds)

        def run():
            self.order.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return torch.zeros(1)

        return run


def test_measure_takes_turns_and_drops_the_hopeless(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(bench_clock, "time", clock)
    checked = []
    medians = bench_clock.measure(
        clock.call("ours", 0.9),
        {
            "a": clock.call("a", 2, 0.1),  # slow to warm up only
            "b": clock.call("b", 0.24),
            "c": clock.call("c", 0.26),
        },
        0,
        lambda name, result: checked.append(name),
    )
    assert medians == pytest.approx({"glai_native": 0.9, "a": 0.1, "b": 0.24, "c": 0.26})
    assert checked == ["glai_native", "a", "b", "c"]
    # A warm-up and a call each, then rounds that start with the next; ours stays however slow, c is gone.
    warm_up, trial, rounds = clock.order[:4], clock.order[4:8], clock.order[8:]
    assert warm_up == trial == ["ours", "a", "b", "c"]
    assert rounds == ["ours", "a", "b", "a", "b", "ours", "b", "ours", "a"]


def test_slow_calls_are_not_tried(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(bench_clock, "time", clock)
    medians = bench_clock.measure(
        clock.call("ours", 2), {"a": clock.call("a", 2), "b": clock.call("b", 3.1)}, 0
    )
    assert medians == pytest.approx({"glai_native": 2, "a": 2, "b": 3.1})
    assert clock.order == ["ours", "a", "b", "ours", "a", "a", "ours", "ours", "a"]


def test_the_quickest_of_three_calls_at_least(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(bench_clock, "time", clock)
    assert bench_clock.quickest(clock.call("ours", 3, 1, 2), 0) == pytest.approx(1)
    assert bench_clock.quickest(clock.call("ours", 3, 2, 2, 1), 1) == pytest.approx(1)


def test_an_interruption_makes_no_form_hopeless(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(bench_clock, "time", clock)
    interrupted = clock.call("a", 0.01, 0.01, 0.01, 0.01, 0.001)
    medians = bench_clock.measure(
        clock.call("ours", 0.001), {"a": interrupted, "b": clock.call("b", 0.002)}, 1
    )
    assert medians["a"] == pytest.approx(0.001)


def test_the_grid_without_data():
    grid = ops_grid.Grid.of(SHAPES, ops_grid.DENSITIES, None)
    fewer = len(ops_grid.DENSITIES) - len(ops_grid.LARGE_DENSITIES)
    assert len(grid.cells) == len(SHAPES) * len(ops_grid.DENSITIES) - fewer
    assert len(grid.skipped) == len(SHAPES) * len(real_gates.SOURCES)


def test_the_grid_with_data():
    grid = ops_grid.Grid.of(SHAPES, (0.5, 0.75), Path("data"))
    assert len(grid.cells) == (len(SHAPES) - 1) * 5 + 1
    assert {(one["shape"], one["gates"]) for one in grid.skipped} == {
        (str(GIANT), source.name) for source in real_gates.SOURCES
    }
    assert "524 MB" in grid.skipped[0]["reason"]


def test_real_gates(data_folder, monkeypatch, quick_machine, threads):
    monkeypatch.setattr(real_gates, "TRAIN_SAMPLES", 300)
    monkeypatch.setattr(real_gates, "MAX_EPOCHS", 2)
    results = ops_grid.bench_ops(
        quick=True, threads=[1], seconds=0, shapes=[SMALL], data=data_folder, progress=False
    )
    assert results["skipped"] == []
    real = [one for one in results["rows"] if one["gates"] != "independent"]
    assert {one["gates"] for one in real} == {source.name for source in real_gates.SOURCES}
    assert len(real) == 3 * 3
    for one in real:
        assert 1 / 9 < one["density"] < 1
        assert 0 < one["deviation"] < 0.5
    density = {one["gates"]: one["density"] for one in real}
    assert density["MNIST raw"] > density["MNIST centred"]

    gates = real_gates.RealGates(data_folder)
    bits = gates.gates("BANKING77", 40, 5)
    assert bits.shape == (40, 5)
    assert bits[:, -1].all()  # the path that is always on
    state = torch.random.get_rng_state()
    assert (real_gates.RealGates(data_folder).gates("BANKING77", 50, 5)[:40] == bits).all()
    assert (torch.random.get_rng_state() == state).all()
    assert gates.gates("BANKING77", 20, 5).data_ptr() == bits.data_ptr()  # trained once
    with pytest.raises(ValueError, match="N must be at most 10003"):
        gates.gates("BANKING77", 10004, 5)
    with pytest.raises(ValueError, match="P must be >= 2"):
        gates.gates("BANKING77", 10, 1)


def test_missing_data_is_one_sentence(tmp_path, monkeypatch, capsys, quick_machine):
    monkeypatch.setenv("GLAI_DATA", str(tmp_path / "nowhere"))
    assert main(["bench", "--quick", "--shape", "33,9,12,10"]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_the_summary_counts_each_row_where_it_belongs():
    wide = SHAPES[3]
    rows = [
        row(density=0.5, ratio=4.0, peak_fraction=0.8),
        row(density=0.5, ratio=9.0, peak_fraction=0.2),
        row(density=0.75, ratio=6.0, peak_fraction=9.0),
        row(density=0.1, ratio=1.5),
        row(density=0.5, ratio=8.0, shape=wide, gates="MNIST raw", peak_fraction=9.0),
        row(density=0.86, ratio=0.5, gates="MNIST raw"),
        row(density=0.5, ratio=1.02, shape=GIANT),
        row(density=0.5, ratio=100.0, threads=2),
        row("input gradient", density=0.05, ratio=3.0, shape=wide),
    ]
    lines = {line.label: line for line in targets.summarize(rows, 1)}
    assert set(lines) == {
        "forward, C = 10",
        "forward, C >= 64",
        "input gradient, C >= 64",
        f"forward, {GIANT}",
        "forward, density 1",
    }
    few = lines["forward, C = 10"]
    assert (few.peaks[0].mean, few.peaks[0].worst, few.peaks[0].missed) == (pytest.approx(0.4), 0.2, True)
    assert few.peaks[1] is None
    assert (few.peaks[2].mean, few.peaks[2].target, few.peaks[2].missed) == (0.5, 0.35, False)
    assert (few.ratio.mean, few.ratio.missed) == (pytest.approx(324**0.25), False)
    assert (few.floor.worst, few.floor.target, few.floor.missed) == (1.5, 1, False)
    assert lines["forward, C >= 64"].peaks == (None, None, None)  # of real gates: in the ratios alone
    assert lines["forward, C >= 64"].ratio.worst == 8
    assert lines[f"forward, {GIANT}"].floor.missed
    assert lines["forward, density 1"].floor.missed
    assert [one["ratio"] for one in targets.slower_cells(rows)] == [0.5]


def test_scaling():
    rows = [row(ours_ms=3.0), row(ours_ms=2.0, threads=2)]
    machine = {"sgemm_scaling": {"1": 1.0, "2": 2.0}}
    (line,) = targets.scaling({"machine": machine, "rows": rows}, 2)
    assert (line.mean, line.worst, line.share) == (pytest.approx(1.5), 1.5, pytest.approx(0.75))
    assert targets.scaling({"machine": machine, "rows": rows}, 1) == []
    assert targets.scaling({"machine": {"sgemm_scaling": {}}, "rows": rows[1:]}, 2) == []


def test_bf16_figures_count_rows_that_were_timed():
    rows = [row(bf16_ratio=1.0), row(bf16_ratio=4.0), row(density=0.1, bf16_ratio=None), row(threads=2)]
    ((label, figure),) = targets.bf16_figures(rows, 1)
    assert label == "forward, C = 10"
    assert (figure.mean, figure.worst, figure.cells) == (pytest.approx(2), 1, 2)
    assert not figure.missed
    assert targets.bf16_figures(rows, 2) == []


def test_report(tmp_path, capsys):
    rows = [
        row(op, shape, density, 0.9 + density, threads=threads, bf16_ratio=1.5)
        for op in ops_grid.OPS
        for shape in (SHAPES[0], SHAPES[3], GIANT)
        for density in (0.05, 0.5, 1.0)
        for threads in (1, 2)
    ]
    rows.append(row(shape=SHAPES[3], density=0.8, gates="MNIST raw", deviation=0.16))
    machine = {
        "cpu": "A processor",
        "isa": "avx512",
        "torch": "2.0",
        "blas": "A library",
        "precision": "float32",
        "threads": [1, 2],
        "fma_peak_gfma_per_s": 90.0,
        "sgemm_gfma_per_s": {"1": 80.0, "2": 160.0},
        "sgemm_scaling": {"1": 1.0, "2": 2.0},
        "call": {"op_us": 3.0, "binding_us": 1.0, "extra_us": 2.0},
    }
    skipped = [{"shape": str(GIANT), "gates": "BANKING77", "reason": "time"}]
    (tmp_path / "results").mkdir()
    results = tmp_path / "results" / "cpu.json"
    settings = {"quick": True, "threads": [2], "seconds": 0.5, "shapes": ["(1,2,3,4)"]}
    content = {"settings": settings, "seconds": 60, "machine": machine, "rows": rows, "skipped": skipped}
    results.write_text(json.dumps(content))
    page = tmp_path / "results" / "cpu.md"
    page.write_text("of last time")
    report.main(["--results", str(results)])
    text = page.read_text()
    assert "of last time" not in text
    assert text.startswith("# The gated products on a CPU\n")
    assert "`python -m glai_bench --quick --shape 1,2,3,4 --threads 2 --seconds 0.5`, 1.0 minutes" in text
    for words in (
        "A processor",
        "0.50 (0.50); 0.9",
        "peak 90 GFMA/s a thread",
        "**2.00 µs between them** (target: 1.5)",
        "Our float32's time / bf16's",
        "**1.50 (1.50); 1.8**",
        "Left out",
        "are slower than torch",
    ):
        assert words in text
    for name in ("cpu-ratio.png", "cpu-peak.png"):
        picture = (tmp_path / "results" / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 150_000
        assert f"]({name})" in text
    results.write_text(json.dumps({"machine": machine, "rows": rows}))
    with pytest.raises(SystemExit, match="run it again"):
        report.main(["--results", str(results)])


def test_report_help(capsys):
    with pytest.raises(SystemExit) as stop:
        report.main(["--help"])
    assert stop.value.code == 0
    assert "python -m glai_bench.report" in capsys.readouterr().out


def test_explain_says_which_form_is_taken(monkeypatch, capsys):
    monkeypatch.delenv("GLAI_DATA", raising=False)
    shape = ["--shape", "512,64,512,128"]
    assert main(["bench", "--quick", "--explain", "--json", *shape]) == 0
    rows = json.loads(capsys.readouterr().out)
    forms = {(row["op"], round(row["density"], 1)): row["form"] for row in rows}
    assert forms["forward", 0.1] == "compaction"
    assert forms["forward", 0.5] == "subset_sums"
    for row in rows:
        costs = {name: row[name] for name in ("compaction", "subset_sums", "reference") if row[name]}
        assert row["sums_first"] == (row["density"] == 1)
        assert row["density"] == 1 or costs[row["form"]] <= min(costs.values()) / 0.9
    assert main(["bench", "--quick", "--explain", *shape]) == 0
    assert "subset_sums" in capsys.readouterr().out


def test_gates_that_deviate_little_take_the_reference_form():
    bits = torch.rand((1024, 64), generator=torch.Generator().manual_seed(0)) < 0.9
    gates = glai.pack_gates(bits)
    why = explain_form("forward", gates, 64, 64)
    assert why["form"] == "reference"
    assert not why["sums_first"]
    assert [explain_form("forward", gates[:n], 64, c)["sums_first"] for n, c in ((8, 16), (9, 16), (2, 64))] == [
        True, False, True,
    ]  # fmt: skip
    assert not explain_form("weight gradient", gates[:1], 64, 64)["sums_first"]
    assert why["density"] == pytest.approx(gates.density())
    assert why["deviation"] == pytest.approx(gates.deviation())
    with pytest.raises(ValueError, match="explain_form: op must be"):
        _native.explain_form("matmul", gates.words, 64, 64, 64)
