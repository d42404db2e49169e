"""The GPU's benchmark, run on the CPU with clocks and cards that stand in."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import glai_native as glai
import glai_native._native as _native
from accuracy import assert_accurate
from glai_bench import __main__ as bench_ops
from glai_bench import clock as bench_clock
from glai_bench import launch_kernels, report
from glai_bench.cuda import card as cuda_card
from glai_bench.cuda import cell, targets
from glai_bench.cuda import grid as bench_grid
from glai_bench.cuda.card import Card, EventClock
from glai_bench.cuda.tables import print_cuda_results
from glai_bench.cuda.torch_forms import COMPILED, cuda_baselines, forget_compiled
from glai_bench.explaining import CUDA_COSTS
from glai_bench.ops import grid as ops_grid
from glai_bench.ops.cases import Shape, make_case
from glai_bench.ops.grid import FORWARD, INPUT_GRAD, OPS, WEIGHT_GRAD
from glai_native.cli.main import main
from glai_native.machine import backend
from glai_native.ops import oracle as ref

pytestmark = pytest.mark.usefixtures("further_commands")
SMALL = Shape(33, 9, 16, 8)


def wide_console():
    return Console(width=200)


@pytest.fixture
def card(monkeypatch, threads):
    """The CPU in the place of a card."""
    threads(1)
    monkeypatch.setattr(cuda_card, "MATRIX_SIZE", 32)
    monkeypatch.setattr(cuda_card, "COPY_BYTES", 1 << 10)
    monkeypatch.setattr(cell, "PATH_KERNEL_SHAPE", (40, 33, 5))
    return Card("NVIDIA Test 1 GB", torch.device("cpu"), 1 << 30, 1 << 13, bench_clock._seconds)


@pytest.fixture
def eager_compiler(monkeypatch):
    """The compiler that changes nothing, and what it was given."""
    compiled = []

    def compiler(function, dynamic):
        assert not dynamic
        compiled.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    yield compiled
    forget_compiled()


@pytest.mark.usefixtures("eager_compiler")
@pytest.mark.parametrize("density", [1.0, 0.4])
def test_every_baseline_computes_the_op(density):
    if not hasattr(torch, "_grouped_mm"):
        pytest.skip(f"torch {torch.__version__} has no _grouped_mm")
    case = make_case(SMALL, density)
    x, w, dy = case.x.double(), case.weight.double(), case.dy.double()
    expected = {
        FORWARD: lambda x, w, dy: ref.gated_matmul_ref(x, case.gates, w),
        WEIGHT_GRAD: lambda x, w, dy: ref.gated_matmul_weight_grad_ref(x, case.gates, dy),
        INPUT_GRAD: lambda x, w, dy: ref.gated_matmul_input_grad_ref(dy, case.gates, w),
    }
    for op, reference in expected.items():
        calls = cuda_baselines(op, case, compiled=True)
        assert COMPILED in calls
        assert "grouped_mm" in calls
        ones = [torch.ones_like(t) for t in (x, w, dy)]
        terms = reference(x.abs(), w.abs(), dy.abs())
        for call in (*calls.values(), *calls.values()):
            assert_accurate(call(), reference(x, w, dy), terms, reference(*ones) + 1)


def test_what_torch_lacks_is_said(monkeypatch):
    monkeypatch.delattr(torch, "_grouped_mm", raising=False)
    calls = cuda_baselines(FORWARD, make_case(SMALL, 0.5), compiled=False)
    with pytest.raises(RuntimeError, match="has no _grouped_mm"):
        calls["grouped_mm"]()


def test_results(card, eager_compiler, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_grid, "QUICK_SHAPES", (SMALL,))
        results = bench_grid.bench_cuda(
            quick=True, seconds=0, precisions=["tf32", "fp32"], card=card, progress=False
        )
    assert not backend.allows_tf32()
    assert [one["shape"] for one in results["skipped"]] == ["every shape"]
    assert eager_compiler == []  # quick compiles for bf16 only
    assert results["machine"]["card"] == "NVIDIA Test 1 GB"
    assert set(results["machine"]["matrix_gfma_per_s"]) == {"tf32", "fp32"}
    assert len(results["rows"]) == 2 * (1 + 3 * 3)
    for row in results["rows"]:
        assert row["ratio"] == pytest.approx(min(row["baselines_ms"].values()) / row["ours_ms"])
        assert row["left_out"][COMPILED] == "takes seconds per shape"
        assert row["floor_ms"] > 0
        assert row["matrix_fraction"] > 0
    small = [row for row in results["rows"] if row["shape"] == [33, 9, 16, 8]]
    # Two turns of 2**13 bytes over inputs of 4·(33·16 + 9·16·8 + 33·8) bytes and bits.
    assert {row["sets"] for row in small} == {3}
    assert json.loads(json.dumps(results)) == results
    print_cuda_results(results, wide_console(), every_row=True)
    output = capsys.readouterr().out
    for words in ("NVIDIA Test 1 GB", "path kernel", "density 1", "any cell", "Cells under 1", "every row"):
        assert words in output


def test_our_forms(card, eager_compiler, monkeypatch, capsys):
    monkeypatch.setattr(cell, "_chosen_form", lambda *arguments: "reference")
    results = bench_grid.bench_cuda(
        quick=True, seconds=0, shapes=[SMALL], precisions=["fp32"], forms=True, card=card, progress=False
    )
    assert {row["op"] for row in results["rows"] if "forms_ms" in row} == {FORWARD, INPUT_GRAD}
    for row in results["rows"]:
        if "forms_ms" in row:
            assert set(row["forms_ms"]) == {"compaction", "reference"}
            row["forms_ms"]["compaction"] = 0.0
    assert cell.FORMS["cuda"] == CUDA_COSTS
    print_cuda_results(results, wide_console())
    output = capsys.readouterr().out
    assert "Cells where another form was faster: 6 of 6" in output
    assert "reference was chosen; ms: compaction 0.0000, reference" in output
    assert targets.cuda_command_name(results["settings"]).endswith("--precisions fp32 --forms --seconds 0")


def test_the_whole_grid(card, eager_compiler):
    grid = bench_grid.cuda_grid(False, None, None)
    cells = list(bench_grid._cells(grid, ["bf16", "fp32"], with_kernel=True))
    assert len(cells) == 2 * (1 + 8 * 3 * 6)
    assert {one[1].n for one in cells if one[1]} == {256, 4096, 65_536}
    assert len(grid.skipped) == 1
    real = bench_grid.cuda_grid(False, None, Path("data"))
    assert len(real.cells) == 8 * (3 * 6 + 3)
    assert not real.skipped
    results = bench_grid.bench_cuda(seconds=0, shapes=[SMALL], precisions=["fp32"], card=card, progress=False)
    assert len(results["rows"]) == 3 * 6
    assert len(eager_compiler) == 3  # once for all densities of a shape
    assert all(COMPILED in row["baselines_ms"] for row in results["rows"])


def test_real_gates(card, eager_compiler, monkeypatch):
    bits = torch.rand((33, 9), generator=torch.Generator().manual_seed(0)) < 0.9

    class Sources:
        def __init__(self, folder):
            assert folder == Path("data")

        def gates(self, source, n, p):
            assert (n, p) == (33, 9)
            return bits

    monkeypatch.setattr(ops_grid, "RealGates", Sources)
    results = bench_grid.bench_cuda(
        quick=True,
        seconds=0,
        shapes=[SMALL],
        precisions=["fp32"],
        data=Path("data"),
        card=card,
        progress=False,
    )
    rows = [row for row in results["rows"] if row["gates"] != "independent"]
    assert [row["gates"] for row in rows] == ["MNIST raw"] * 3
    gates = glai.pack_gates(bits)
    assert rows[0]["density"] == pytest.approx(gates.density())
    assert rows[0]["deviation"] == pytest.approx(gates.deviation())
    assert results["skipped"] == []


def card_results():
    """As of a card, with ratios that are made up."""
    rows = [
        {
            "op": op,
            "shape": [4096, 64, 512, c],
            "gates": gates,
            "density": density,
            "deviation": min(density, 1 - density) if gates == "independent" else 0.2,
            "precision": precision,
            "ours_ms": 1.0,
            "baselines_ms": {"dense": 2 * c / 128},
            "best": "dense",
            "ratio": 2 * c / 128,
            "left_out": {},
            "floor_ms": 0.5,
            "matrix_fraction": 0.4,
        }
        for precision in ("bf16", "tf32")
        for op in OPS
        for c in (10, 128)
        for density, gates in ((1.0, "independent"), (0.75, "MNIST raw"), (0.1, "independent"))
    ]
    return {
        "settings": {
            "device": "cuda",
            "quick": True,
            "seconds": 0.12,
            "minutes": 3.0,
            "precisions": ["bf16", "tf32"],
            "shapes": None,
        },
        "seconds": 90,
        "machine": {
            "card": "NVIDIA Test",
            "torch": "2.13",
            "copy_gb_per_s": 2000.0,
            "matrix_gfma_per_s": {"bf16": 3e5, "tf32": 1e5},
        },
        "rows": rows,
        "skipped": [{"shape": "(1,2,3,4)", "gates": "density 0.5, bf16", "reason": "the time was over"}],
    }


def test_report_of_a_card(tmp_path):
    results = tmp_path / "h100.json"
    results.write_text(json.dumps(card_results()))
    report.main(["--results", str(results)])
    text = (tmp_path / "h100.md").read_text()
    for words in (
        "`python -m glai_bench --device cuda --quick --precisions bf16 tf32 --seconds 0.12`, 1.5 minutes",
        "NVIDIA Test, torch 2.13",
        "| geometric mean (worst); target | bf16 | tf32 |",
        "| forward, C >= 128, density or deviation <= 0.25 | 2.00 (2.00); 2 | 2.00 (2.00); 2 |",
        "| forward, C >= 128, density or deviation <= 0.1 | **2.00 (2.00); 4** |",
        "18 of the 36 cells are slower than torch",
        "MNIST raw, density 0.75, bf16 (dense)",
        "Left out: (1,2,3,4) with gates of density 0.5, bf16 (the time was over)",
        "](h100-ratio.png)",
    ):
        assert words in text
    for name in ("h100-ratio.png", "h100-matrix.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_explain_of_cuda(capsys, monkeypatch):
    monkeypatch.delenv("GLAI_DATA", raising=False)
    arguments = ["bench", "--explain", "--device", "cuda", "--quick", "--shape", "2048,64,256,256"]
    assert main([*arguments, "--precisions", "bf16", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    forms = {(row["op"], round(row["density"], 1)): row["form"] for row in rows}
    for op in (FORWARD, INPUT_GRAD):
        assert [forms[op, density] for density in (1.0, 0.5, 0.1)] == ["dense", "dense", "compaction"]
    assert {forms[WEIGHT_GRAD, density] for density in (1.0, 0.5, 0.1)} == {"compaction"}
    assert main(arguments) == 0
    assert "compaction" in capsys.readouterr().out


def test_the_choice_of_a_form():
    choose = _native.explain_cuda_form
    unknown = choose(4096, 64, 512, 128, True, None)
    assert unknown["form"] == "dense"
    assert unknown["compaction"] == unknown["reference"] == 0
    for size in ((0, 3, 4, 5), (3, 0, 4, 5), (3, 4, 5, 0)):
        assert choose(*size, True, (0.1, 0.1))["form"] == "dense"
    shares = (0, 0.1, 0.3, 0.5)
    for form in ("compaction", "reference"):
        costs = [choose(4096, 64, 512, 128, True, (share, share))[form] for share in shares]
        assert costs == sorted(costs)
    # On CUDA cores multiply-adds count, on tensor cores what is loaded.
    assert choose(4096, 64, 512, 128, False, (0.3, 0.3))["form"] == "compaction"
    assert choose(4096, 64, 512, 128, True, (0.3, 0.3))["form"] == "dense"
    # Many gates are on, but mostly the same ones.
    assert choose(4096, 256, 512, 128, False, (0.8, 0.05))["form"] == "reference"


def test_what_does_not_fit_or_fails_is_left_out(card, capsys, monkeypatch):
    small = Card(card.name, card.device, 5000, card.cache_bytes, card.clock)
    results = bench_grid.bench_cuda(
        quick=True, seconds=0, shapes=[SMALL], precisions=["fp32"], card=small, progress=False
    )
    assert results["rows"] == []
    assert "takes 0 GB" in results["skipped"][0]["reason"]
    print_cuda_results(results, wide_console())
    assert "Left out: (33,9,16,8), density 1, fp32: takes 0 GB" in capsys.readouterr().out

    late = bench_grid.bench_cuda(
        quick=True, seconds=0, precisions=["fp32"], minutes=-1, card=card, progress=False
    )
    assert {one["reason"] for one in late["skipped"][1:]} == {"the time was over"}
    assert "GLAI_DATA is not set" in late["skipped"][0]["reason"]
    print_cuda_results(late, wide_console())
    assert " more" in capsys.readouterr().out

    def broken(op, case, compiled):
        return {"wrong": lambda: torch.ones(1, 1), "lacks memory": lambda: 1 / 0}

    monkeypatch.setattr(cell, "cuda_baselines", broken)
    one = bench_grid.bench_cuda(
        quick=True, seconds=0, shapes=[SMALL], precisions=["fp32"], card=card, progress=False
    )
    assert {"wrong", "lacks memory"} <= set(one["rows"][0]["left_out"])
    print_cuda_results(one, wide_console())
    assert "Form left out of 9 of 9 cells: lacks memory: division by zero" in capsys.readouterr().out


@pytest.mark.parametrize("op", OPS)
def test_our_result_is_held_to_float64(op, card, monkeypatch):
    real = cell.op_calls

    def wrong(name, case, gates):
        ours, baselines = real(name, case, gates)
        return (lambda: ours() * 1.001) if name == op else ours, baselines

    monkeypatch.setattr(cell, "op_calls", wrong)
    results = bench_grid.bench_cuda(
        quick=True, seconds=0, shapes=[SMALL], precisions=["fp32"], card=card, progress=False
    )
    assert {row["op"] for row in results["rows"]} == set(OPS) - {op}
    assert {one["shape"] for one in results["skipped"]} == {f"{op} {SMALL}"}
    assert "'glai_native' computes something else" in results["skipped"][0]["reason"]


def test_sets_take_turns():
    order = []

    def call(i):
        return lambda: (order.append(i), torch.tensor(i))[1]

    rotation = cell.Rotation([call(0), call(1), call(2)])
    assert [int(rotation()) for _ in range(5)] == [0, 1, 2, 0, 1]
    assert order == [2, 1, 0, 1, 2, 0, 1]  # all once, so that the first call of none is timed


def test_the_event_clock():
    log = []

    class Event:
        def __init__(self):
            self.name = f"event {len(names)}"
            names.append(self.name)

        def record(self):
            log.append(self.name)

        def synchronize(self):
            log.append(f"wait for {self.name}")

        def elapsed_time(self, end):
            return 2.5

    names = []
    clock = EventClock(64, torch.device("cpu"), Event)
    clock._cold.fill_(1)
    assert clock(lambda: log.append(f"call {int(clock._cold.sum())}")) == 2.5e-3
    assert log == ["event 0", "call 0", "event 1", "wait for event 1"]


def test_arithmetic_is_put_back():
    assert not backend.allows_tf32()
    with cuda_card.arithmetic("tf32"):
        assert backend.allows_tf32()
    assert not backend.allows_tf32()


def row(op=FORWARD, c=10, density=0.5, ratio=2.0, precision="bf16", n=512, **others):
    return {
        "op": op,
        "shape": [n, 64, 512, c],
        "gates": "independent",
        "density": density,
        "deviation": min(density, 1 - density),
        "precision": precision,
        "ratio": ratio,
        "matrix_fraction": 0.5,
        **others,
    }


def test_the_summary_counts_each_row_where_it_belongs():
    rows = [
        row(ratio=4.0),
        row(ratio=1.0, density=0.05),
        row(ratio=1.5, precision="fp32"),
        row(ratio=3.0, c=1000, density=0.25),
        row(ratio=3.0, c=1000, density=0.1),
        row(ratio=3.0, c=1000, density=0.75, gates="MNIST raw", deviation=0.2),
        row(ratio=1.1, c=100, density=0.5),
        row(ratio=0.9, density=1.0),
        row(ratio=5.0, c=64, density=1.0, n=1 << 16),
        row("path kernel", ratio=2.0),
    ]
    lines = dict(targets.summarize(rows, ["bf16", "fp32"]))
    few, exact = lines["forward, C <= 64, density <= 0.75"]
    assert (few.mean, few.worst, few.target, few.missed) == (pytest.approx(2), 1, 2, False)
    assert (exact.mean, exact.target) == (1.5, None)
    many = [lines[f"forward, C >= 128, density or deviation <= {r}"][0] for r in (0.25, 0.1)]
    assert [(one.mean, one.target, one.missed) for one in many] == [
        (pytest.approx(3), 2, False),
        (pytest.approx(3), 4, True),
    ]
    assert lines["forward, other C and density"][0].cells == 1
    assert lines["forward, density 1"][0].worst == 0.9
    assert lines["path kernel"][0].missed
    assert lines["forward, share of the matrix rate"][0].cells == 1
    worst = lines["any cell"]
    assert [(one.worst, one.missed) for one in worst] == [(0.9, True), (1.5, False)]


def test_without_a_gpu_it_is_one_sentence(capsys, monkeypatch):
    info = {**glai.build_info(), "cuda_available": False, "cuda_reason": "no NVIDIA driver"}
    monkeypatch.setattr(cuda_card, "build_info", lambda: info)
    for run in (lambda: main(["bench", "--device", "cuda"]), lambda: bench_ops.main(["--device", "cuda"])):
        assert run() == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert "no GPU to run on: no NVIDIA driver" in captured.err
        assert captured.out == ""


def test_each_card_has_its_file(card, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("GLAI_DATA", raising=False)  # real gates add rows
    monkeypatch.setattr(Card, "here", classmethod(lambda cls: card))
    (tmp_path / "bench" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    options = ["--device", "cuda", "--quick", "--seconds", "1e-9", "--shape", "33,9,16,8", "--precisions"]
    assert bench_ops.main([*options, "fp32"]) == 0
    results = json.loads((tmp_path / "bench" / "results" / "nvidia-test-1-gb.json").read_text())
    assert results["settings"]["precisions"] == ["fp32"]
    assert len(results["rows"]) == 9
    assert "NVIDIA Test 1 GB" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        bench_ops.main([*options, "int8"])
    assert stop.value.code == 2


def test_every_kernel_is_launched(capsys, monkeypatch):
    launch_kernels.launch(launch_kernels.RAGGED, "fp32", "cpu")
    info = {**glai.build_info(), "cuda_available": False, "cuda_reason": "no NVIDIA driver"}
    monkeypatch.setattr(glai, "build_info", lambda: info)
    assert launch_kernels.main([]) == 2
    assert "no GPU to run on: no NVIDIA driver" in capsys.readouterr().err


def test_what_was_timed_outlives_a_failed_card(card, capsys):
    class Failing(Card):
        def release(self):
            if releases.append(None) or len(releases) == 3:
                raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")

    releases = []
    failing = Failing(card.name, card.device, card.memory_bytes, card.cache_bytes, card.clock)
    results = bench_grid.bench_cuda(
        quick=True, seconds=0, shapes=[SMALL], precisions=["fp32"], card=failing, progress=False
    )
    assert len(results["rows"]) == 3 * 2  # two of three densities; the first release is after the floors
    assert results["skipped"][-1]["reason"] == "CUDA error: an illegal memory access was encountered"


def test_a_type_that_is_refused_is_left_out_with_the_reason(card):
    results = bench_grid.bench_cuda(
        quick=True, seconds=0, shapes=[SMALL], precisions=["bf16"], card=card, progress=False
    )
    assert results["rows"] == []  # the CPU's kernels take no bfloat16
    assert len(results["skipped"]) == 3 * 3
    assert all("bfloat16" in one["reason"] for one in results["skipped"])
