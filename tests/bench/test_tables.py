"""The tables' benchmark: data read and split, cells measured once, an MLP tuned, and the page that is written."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from glai_bench.solvers.mlp import MlpSettings
from glai_bench.tables import cells, learners, rows, tuned_mlp
from glai_bench.tables.__main__ import main
from glai_bench.tables.data import read_table
from glai_bench.tables.report import write

SETTINGS = MlpSettings(16, 3e-3, 64, epochs=5)


def cell(score, seconds, measure="accuracy"):
    return {
        "samples": 100,
        "features": 5,
        "measure": measure,
        "score": score,
        "processor_seconds": seconds,
    }


def results_of(measured):
    machine = {"processor": "one", "cpu_isa": "avx2", "threads": 1, "packages": {"torch": "2"}}
    return {"machine": machine, "cells": {key: {"result": one, "load": 9} for key, one in measured.items()}}


def test_inputs_and_values_are_standardised_by_the_training_samples():
    table = read_table("diabetes", None)
    for values in (table.x, table.y):
        assert values.mean(0) == pytest.approx(0, abs=1e-5)
        assert values.std(0) == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("threads")  # main sets torch's number of them
def test_a_cell_is_measured_once_and_the_page_beside_it(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    output = tmp_path / "tables.json"
    told = ["--data", "diabetes", "--seeds", "2", "--output", str(output)]
    monkeypatch.setattr(tuned_mlp, "RATES", ((3e-3, 128),))
    main([*told, "--only", "linear|tuned MLP", "--json"])
    results = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out)["cells"].keys() == results["cells"].keys()
    seeds = [f"diabetes/{learner}/seed={seed}" for learner in ("linear", "tuned MLP") for seed in range(2)]
    assert results["cells"].keys() == {"diabetes/tuned MLP/tuning", *seeds}
    for key in seeds:
        assert results["cells"][key]["result"]["samples"] == 331
        assert results["cells"][key]["result"]["score"] > 0.2
    before = output.read_text()
    page = output.with_suffix(".md").read_text()
    monkeypatch.setattr(cells, "tuned", lambda *_: pytest.fail("it was tuned already"))
    monkeypatch.setattr(cells, "_measured", lambda *_: pytest.fail("it was measured already"))
    main([*told, "--only", "linear|tuned MLP"])
    assert output.read_text() == before
    assert output.with_suffix(".md").read_text() == page
    assert page in capsys.readouterr().out
    monkeypatch.undo()
    main(["--data", "diabetes", "--seeds", "1", "--output", str(output), "--only", "GLAI/"])
    added = json.loads(output.read_text())["cells"]
    assert added.keys() == {*results["cells"], "diabetes/GLAI/seed=0"}
    assert "331 samples" in added["diabetes/GLAI/seed=0"]["result"]["reason"]
    assert output.with_suffix(".png").is_file()


def test_the_tuned_mlp_needs_its_settings():
    wanted = cells.cells(("diabetes",), range(1), None, {})
    run = next(one.run for one in wanted if one.key == "diabetes/tuned MLP/seed=0")
    with pytest.raises(LookupError, match="needs diabetes/tuned MLP/tuning"):
        run()


@pytest.mark.parametrize("classify", [True, False])
@pytest.mark.parametrize("few", [True, False])
def test_the_tuned_mlp_has_the_epochs_of_the_best_held_out_score(classify, few, monkeypatch):
    table = read_table("breast cancer" if classify else "diabetes", None)
    asked = [SETTINGS, replace(SETTINGS, learning_rate=1e-6)]
    monkeypatch.setattr(tuned_mlp, "candidates", lambda features: (asked, 2))
    monkeypatch.setattr(tuned_mlp, "FEW_SAMPLES", len(table.x) if few else 0)
    found = tuned_mlp.tuned(table)
    assert found["settings"]["learning_rate"] == SETTINGS.learning_rate
    assert found["candidates"] == 2
    scores = []
    settings = MlpSettings(**found["settings"])
    for fold in np.array_split(np.random.default_rng(0).permutation(len(table.x)), 5)[: 5 if few else 1]:
        rest = np.ones(len(table.x), bool)
        rest[fold] = False
        again = tuned_mlp.TunedMLP(classify, settings, 0).fit(table.x[rest], table.y[rest])
        scores.append(again.score(table.x[fold], table.y[fold]))
    assert np.mean(scores) == pytest.approx(found["held_out_score"])


def test_wide_data_have_fewer_candidates():
    few, _ = tuned_mlp.candidates(784)
    many, _ = tuned_mlp.candidates(16)
    assert len(few) < len(many)


def test_what_takes_too_long_is_ended_and_not_begun_again(monkeypatch):
    def endless(model, table):
        while True:
            pass

    monkeypatch.setattr(cells, "LIMIT_SECONDS", 0.05)
    monkeypatch.setattr(cells, "_load", lambda *_: None)
    monkeypatch.setattr(cells, "_fit", endless)
    found = {}
    wanted = cells.cells(("diabetes",), range(3), None, found)
    keys = []
    for one in wanted:
        if f"/{learners.BOOSTING}/" in one.key:
            keys.append(one.key)
            found[one.key] = one.run()
            assert found[one.key]["unfinished"] == 0.05
    assert keys == [f"diabetes/{learners.BOOSTING}/seed=0"]
    time.sleep(0.1)  # the clock has been stopped: nothing is raised behind the block
    page_rows = rows.rows(found)
    assert page_rows[0].figures[learners.BOOSTING].score is None
    assert rows.duels(page_rows, learners.BOOSTING) == []


def test_lightgbm_is_left_out_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(learners.importlib.util, "find_spec", lambda name: None)
    assert learners.LIGHTGBM not in learners.installed()
    page = write(results_of({"digits/linear/seed=0": cell(0.9, 1)}), tmp_path / "tables.md")
    assert "LightGBM was not installed" in page
    assert "a load of 9 in the median cell" in page


def test_what_is_missed_is_bold(tmp_path):
    pytest.importorskip("matplotlib")
    measured = {
        "digits/scikit-learn's MLP/seed=0": cell(0.9, 6.0),
        "digits/tuned MLP/seed=0": cell(0.92, 2.0),
        "digits/GLAI/seed=0": cell(0.95, 1.0),
        "letter/scikit-learn's MLP/seed=0": cell(0.9, 1.0),
        "letter/tuned MLP/seed=0": cell(0.9, 1.0),
        "letter/GLAI/seed=0": cell(0.896, 1.5),
    }
    page = write(results_of(measured), tmp_path / "tables.md")
    for line in (
        "**Not measured beside tuned MLP: breast cancer, diabetes, electricity, ",
        "| at its worst beside scikit-learn's MLP | **-0.004**, letter (-0.003) | behind by more than 0.003",
        "| above scikit-learn's MLP | **1 of 2** (7 of 10) | not on letter |",
        "| its time over that MLP's, median | **0.83** (0.33) |  |",
        "| its time over that MLP's, at its worst | **1.50**, letter (1) |  |",
        "| within 0.3 points of the tuned MLP, or above | **1 of 2** (8 of 10) | not on letter |",
        "| within 0.3 points in half the time | **1 of 2** (8 of 10) | not on letter |",
        "| digits: 100 x 5, accuracy | 90.0; 6 s | 92.0; 2 s | **95.0**; 1 s |",
        "| digits | +0.050; 0.17 | +0.030; 0.50 |",
        "| letter | **-0.004**; **1.50** | **-0.004**; **1.50** |",
    ):
        assert line in page


def test_medians_are_over_the_seeds():
    measured = {f"digits/GLAI/seed={seed}": cell(0.9 + 0.01 * seed, 3 - seed) for seed in range(3)}
    (row,) = rows.rows(measured)
    assert row.figures["GLAI"] == rows.Figure(pytest.approx(0.91), 2, 3)


def test_data_that_are_not_there_are_refused(monkeypatch, capsys):
    monkeypatch.delenv("GLAI_DATA", raising=False)
    with pytest.raises(SystemExit):
        main(["--data", "letter"])
    assert "GLAI_DATA" in capsys.readouterr().err
