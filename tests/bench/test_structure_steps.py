"""The benchmark of the structure's steps: its figures, and the table that it prints."""

import json

import glai_bench.steps.structure as bench


def test_figures_and_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "SAMPLES", 64)
    monkeypatch.setattr(bench, "CASES", (((8, (3, 5, 2)), 3.0),))
    page = tmp_path / "figures" / "steps.json"
    assert bench.main(["--threads", "1", "--seconds", "0.01", "--output", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "3-5-2" in printed
    (row,) = json.loads(page.read_text())["rows"]
    assert row["threads"] == 1
    assert row["widths"] == [3, 5, 2]
    taken = row["microseconds"]
    assert row["times faster"] == taken["torch"] / taken["glai_native"] > 0
