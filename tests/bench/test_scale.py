"""The benchmark of scale: the same rows however they are cut, cells in processes, and the page that is written."""

import json
import subprocess
import sys

import numpy as np
import pytest

from glai_bench.scale import cells, same_bits
from glai_bench.scale.child import measure, memory
from glai_bench.scale.curves import curves
from glai_bench.scale.data import BEST_R2, BLOCK, DRAWN_LABELS, Rule, read_chunks, write_arrays, write_parquet
from glai_bench.scale.learners import KINDS, Paths, Spec
from glai_bench.scale.report import write

FEATURES, ROWS = 6, 300
MACHINE = {
    "processor": "some",
    "cpu_isa": "any",
    "packages": {"torch": "2"},
    "threads": 1,
}


def _written(tmp_path, spec):
    rule, arrays = Rule(spec.features), spec.source != "parquet"
    made = [
        (write_arrays if arrays else write_parquet)(tmp_path / f"{name}{'' if arrays else '.parquet'}", *told)
        for name, told in (
            ("train", (rule, spec.rows, spec.task)),
            ("test", (rule, ROWS, spec.task, 9)),
        )
    ]
    return Paths(*made, tmp_path / "model")


def test_more_rows_begin_with_the_same_ones():
    rule = Rule(FEATURES)
    many = np.concatenate([block.x for block in rule.blocks(BLOCK + 5)])
    assert many.shape == (BLOCK + 5, FEATURES)
    assert np.array_equal(next(rule.blocks(7)).x, many[:7])
    assert np.array_equal(next(Rule(FEATURES).blocks(5, first=1)).x, many[BLOCK:])
    assert not np.array_equal(next(Rule(FEATURES, seed=1).blocks(7)).x, many[:7])


def test_the_rule_has_the_noise_that_it_states():
    rule = Rule(40)
    block = rule.block(3)
    latent = np.random.default_rng([0, 3, 3]).standard_normal((BLOCK, 8))
    scores = (rule._raw_scores(latent) - rule._mean) / rule._deviation
    right = (scores[:, :10].argmax(1) == block.classes).mean()
    assert right == pytest.approx(1 - 0.9 * DRAWN_LABELS, abs=0.01)
    assert np.corrcoef(scores[:, 10], block.values)[0, 1] ** 2 == pytest.approx(BEST_R2, abs=0.01)


def test_arrays_and_parquet_hold_the_same_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rule = Rule(FEATURES)
    folder = write_arrays(tmp_path / "arrays", rule, ROWS, "regression")
    table = parquet.read_table(write_parquet(tmp_path / "rows.parquet", rule, ROWS, "regression"))
    chunks = list(read_chunks(folder, 128))
    assert [len(x) for x, _ in chunks] == [128, 128, 44]
    assert np.array_equal(np.load(folder / "x.npy"), np.concatenate([x for x, _ in chunks]))
    assert np.array_equal(np.load(folder / "y.npy"), table["label"].to_numpy())
    assert np.array_equal(np.load(folder / "x.npy")[:, 2], table["x2"].to_numpy())


@pytest.mark.usefixtures("threads")  # the command sets torch's number of them
@pytest.mark.parametrize(
    "spec",
    [
        Spec("exact", "regression", ROWS, FEATURES, 16, "chunks"),
        Spec("glai train --exact", "classification", ROWS, FEATURES, 16, "arrays"),
        Spec("statistics", "classification", ROWS, FEATURES, source="chunks"),
        Spec("partial_fit", "classification", ROWS, FEATURES, source="chunks"),
        Spec("linear", "classification", ROWS, FEATURES),
    ],
    ids=lambda spec: spec.kind,
)
def test_a_cell_says_what_it_took(tmp_path, spec):
    found = measure(spec, _written(tmp_path, spec))
    assert 0 < found["score"] < 1
    assert found["processor_seconds"] > 0
    assert found["peak_bytes"] >= found["imported_bytes"] > 0
    assert (found["state_bytes"] is None) == (spec.kind == "linear")


def test_a_child_prints_its_figures_and_is_ended_at_its_limit(tmp_path):
    spec = Spec("exact", "classification", ROWS, FEATURES, 16, "memory map")
    paths = [str(path) for path in _written(tmp_path, spec)]
    told = {"spec": spec._asdict(), "paths": paths, "limit": 60}
    command = [sys.executable, "-m", "glai_bench.scale.child", json.dumps(told)]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    found = json.loads(printed)
    # of a state of 300 rows: 16 units, 6 inputs and the constant, 10 classes, and 16 bytes a row
    assert found["state_bytes"] == 8 * (23 * 23 + 23 * 10 + 10) + 16 * ROWS
    assert found["digest"] == measure(spec, _written(tmp_path, spec))["digest"]


def test_what_takes_too_long_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "LIMIT", 1)
    monkeypatch.setattr(cells, "TEST_ROWS", ROWS)
    found = cells.run(Spec("scikit-learn's MLP", "classification", 20_000, 30), tmp_path)
    assert found["unfinished"] == "not done after 1 processor seconds"


def test_cells_have_names_of_their_own_and_known_kinds():
    names = [spec.key for spec in cells.specs(cells.FULL)]
    assert len(set(names)) == len(names)
    assert {spec.kind for spec in cells.specs(cells.FULL)} == set(KINDS)


def test_exponents_and_the_page(tmp_path):
    pytest.importorskip("matplotlib")
    results = {"machine": MACHINE, "cells": {}}
    for rows in (1_000, 10_000):
        for units in (10, 20):
            spec = Spec("exact", "classification", rows, 5, units, "memory map")
            figures = {
                "score": 0.5,
                "processor_seconds": rows * units**2 / 1e6,
                "imported_bytes": 400e6,
                "peak_bytes": 400e6 + units * 10e6,
                "state_bytes": 1e6,
                "digest": "0",
            }
            results["cells"][spec.key] = {"result": spec._asdict() | figures}
    spec = Spec("linear", "classification", 1_000, 5)
    results["cells"][spec.key] = {"result": spec._asdict() | {"unfinished": "not done after 600 s"}}
    found = curves(cell["result"] for cell in results["cells"].values())
    times = {(curve.size, curve.exponent("processor_seconds")) for curve in found}
    assert {(size, round(k, 6)) for size, k in times} == {("rows", 1.0), ("units", 2.0)}
    page = write(results, tmp_path / "scale.md")
    assert (tmp_path / "scale.md").read_text() == page
    assert "| exact, M = 20, memory map | 50.0%; 0.4 s; **600 MB** (502) |" in page
    assert "not done after 600 s" in page
    assert (tmp_path / "scale.png").exists()


def test_memory_of_this_process():
    assert memory("VmHWM") >= memory("VmRSS") > 1 << 20


def test_checks_of_few_rows_kill_nothing(tmp_path):
    names = [cell.key for cell in same_bits.cells(2_000, 10, 32, tmp_path)]
    assert names == ["same bits/sources/M=32/D=10/N=2000"]
