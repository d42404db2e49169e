"""The tables' benchmark: data read and split, every learner scored, and the page that is written."""

import json
import sys

import pytest

from glai_bench.tables.__main__ import LEARNERS, main, measure, read_table


def test_rows_and_their_medians():
    rows = measure({"diabetes": read_table("diabetes", None)}, seeds=2)
    assert [row["learner"] for row in rows] == list(LEARNERS)
    for row in rows:
        assert row["measure"] == "R2"
        assert row["samples"] == 331
        assert row["score"] == pytest.approx(sum(row["scores"]) / 2)


def test_inputs_and_values_are_standardised_by_the_training_samples():
    table = read_table("diabetes", None)
    for values in (table.x, table.y):
        assert values.mean(0) == pytest.approx(0, abs=1e-5)
        assert values.std(0) == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("threads")  # main sets torch's number of them
def test_files_hold_the_results_and_the_page(tmp_path, monkeypatch, capsys):
    output = tmp_path / "tables.json"
    arguments = ["tables", "--data", "breast cancer", "--seeds", "1", "--output", str(output), "--json"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setenv("GLAI_DATA", str(tmp_path))
    main()
    results = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == results
    page = output.with_suffix(".md").read_text()
    best = max(results["rows"], key=lambda row: row["score"])
    assert f"**{100 * best['score']:.1f}**" in page


def test_data_that_are_not_there_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tables", "--data", "letter"])
    monkeypatch.delenv("GLAI_DATA", raising=False)
    with pytest.raises(SystemExit):
        main()
    assert "GLAI_DATA" in capsys.readouterr().err
