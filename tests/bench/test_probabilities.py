"""The benchmark of probabilities: cells that are measured once, and the page that is made of them."""

import json
import sys
from pathlib import Path

import pytest

import glai_native as glai
from glai_bench.tables import probabilities

RESULTS = Path(__file__).parents[2] / "bench" / "results"


def test_a_cell_is_measured_once_and_the_page_beside_it(tmp_path, monkeypatch, capsys):
    output = tmp_path / "probabilities.json"
    few = {
        probabilities.MLP: probabilities.DEFAULTS[probabilities.MLP],
        "as chosen": lambda: glai.GLAIClassifier((8,), structure_epochs=2),
        "dual": lambda: pytest.fail("the same learner was measured already"),
    }
    monkeypatch.setitem(probabilities.LEARNERS, "digits", few)
    monkeypatch.setattr(sys, "argv", ["probabilities", "--data", "digits", "--output", str(output)])
    probabilities.main()
    cells = json.loads(output.read_text())["digits"]
    assert cells["dual"] == cells["as chosen"]
    assert cells["dual"]["accuracy"] > 0.9
    page = output.with_suffix(".md").read_text()
    assert capsys.readouterr().out == page + "\n"
    assert "| digits | as chosen: dual |" in page
    monkeypatch.setattr(probabilities, "measure", lambda *_: pytest.fail("it was measured already"))
    probabilities.main()
    assert output.with_suffix(".md").read_text() == page


def test_what_misses_the_target_is_bold():
    cells = {probabilities.MLP: {"accuracy": 0.9, "log_loss": 0.2}}
    cells["sgd"] = {"accuracy": 0.91, "log_loss": 0.2099, "solver": "sgd", "temperature": 1.5}
    cells["dual"] = cells["sgd"] | {"log_loss": 0.2101}
    page = probabilities.markdown({"digits": cells})
    assert "| digits | sgd | 91.00 | 0.2099 | 1.05 | 1.5 |" in page
    assert "| digits | dual | 91.00 | **0.2101** | 1.05 | 1.5 |" in page


def test_the_page_is_made_of_the_results_beside_it():
    results = json.loads((RESULTS / "probabilities.json").read_text())
    assert (RESULTS / "probabilities.md").read_text() == probabilities.markdown(results)


def test_data_that_are_not_there_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["probabilities", "--data", "letter"])
    monkeypatch.delenv("GLAI_DATA", raising=False)
    with pytest.raises(SystemExit):
        probabilities.main()
    assert "GLAI_DATA" in capsys.readouterr().err
