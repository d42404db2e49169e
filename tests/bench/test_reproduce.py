"""The reproduction: resumes, keeps what failed by name, and makes its page."""

import json

import pytest

from glai_bench import claims
from glai_bench.claims import __main__ as reproduce
from glai_bench.claims import report
from glai_bench.claims.cell import Cell

HEAD = ["--quick", "--data-sets", "digits", "--threads", "1"]


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


class FewCells:
    """A claim whose cells are counted; the one named is not there the first time."""

    def __init__(self, cell, broken, error):
        self.cell, self.broken, self.error = cell, broken, error
        self.ran = []

    def cells(self, settings):
        for seed in settings.seeds:
            yield self.cell(f"settling/digits/h=1/seed={seed}", lambda seed=seed: self.run(seed))

    def run(self, seed):
        self.ran.append(seed)
        if seed == self.broken:
            raise self.error
        return {"seed": seed}

    def tables(self, results):
        return "\n".join(f"seed {result['seed']}" for result in results.values())


def test_a_killed_run_goes_on_where_it_was(monkeypatch, tmp_path):
    claim = FewCells(Cell, broken=2, error=KeyboardInterrupt())
    monkeypatch.setattr(claims, "load", lambda name: claim)
    command = [*HEAD, "--claims", "settling", "--seeds", "4", "--output", str(tmp_path / "r.json")]
    with pytest.raises(KeyboardInterrupt):
        reproduce.main(command)
    assert set(json.loads((tmp_path / "r.json").read_text())["cells"]) == {
        f"settling/digits/h=1/seed={seed}" for seed in (0, 1)
    }
    claim.broken, claim.ran = None, []
    assert reproduce.main(command) == 0
    assert claim.ran == [2, 3]


def test_a_cell_that_fails_is_named_and_run_again(monkeypatch, tmp_path):
    claim = FewCells(Cell, broken=1, error=MemoryError("too large"))
    monkeypatch.setattr(claims, "load", lambda name: claim)
    output = tmp_path / "r.json"
    command = [*HEAD, "--claims", "settling", "--seeds", "3", "--output", str(output)]
    assert reproduce.main(command) == 1
    cells = json.loads(output.read_text())["cells"]
    assert cells["settling/digits/h=1/seed=1"]["error"] == "MemoryError: too large"
    assert [cells[f"settling/digits/h=1/seed={seed}"]["result"]["seed"] for seed in (0, 2)] == [0, 2]
    report.main(["--results", str(output)])
    assert "\n- settling/digits/h=1/seed=1: MemoryError: too large\n" in output.with_suffix(".md").read_text()
    claim.broken, claim.ran = None, []
    assert reproduce.main(command) == 0
    assert claim.ran == [1]


def test_a_quick_run_leaves_the_results_that_are_kept(monkeypatch, tmp_path):
    claim = FewCells(Cell, broken=None, error=None)
    monkeypatch.setattr(claims, "load", lambda name: claim)
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "bench" / "results" / reproduce.OUTPUT
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"settings": {"quick": False, "threads": 2}, "cells": {}}))
    before = kept.read_bytes()
    assert reproduce.main([*HEAD, "--claims", "settling"]) == 0
    assert claim.ran == [0]
    assert kept.read_bytes() == before
    assert json.loads(kept.with_name(reproduce.QUICK_OUTPUT).read_text())["settings"]["quick"]


def test_results_of_another_kind_of_run_are_not_mixed(tmp_path, capsys):
    output = tmp_path / "r.json"
    output.write_text(json.dumps({"settings": {"quick": False, "threads": 1}, "cells": {}}))
    with pytest.raises(SystemExit):
        reproduce.main([*HEAD, "--output", str(output)])
    assert "was written with quick=False and this run has quick=True" in capsys.readouterr().err


def test_a_report_of_digits(tmp_path):
    pytest.importorskip("matplotlib")
    output, page = tmp_path / "reproduction.json", tmp_path / "reproduction.md"
    assert reproduce.main([*HEAD, "--claims", "settling", "accuracy", "--output", str(output)]) == 0
    page.write_text("from before")
    report.main(["--results", str(output)])
    heart, _, tables = page.read_text().partition("\n## All tables\n")
    assert heart.startswith("# The published claims, repeated\n")
    assert "from before" not in heart
    for line in (
        "**Structure settles before the weights: ",
        "**No loss of accuracy: ",
        "![No loss of accuracy](reproduction-accuracy.png)",
    ):
        assert line in heart
    for line in (
        "Trained gates against random ones",
        "output directions, dual, 1x; output directions, dual, 2x",
    ):
        assert line in tables
        assert line not in heart
    assert (tmp_path / "reproduction-settling.png").stat().st_size > 1000


def test_a_cell_that_needs_a_failed_one_says_which(tmp_path):
    output = tmp_path / "r.json"
    assert reproduce.main([*HEAD, "--claims", "energy", "--output", str(output)]) == 1
    cells = json.loads(output.read_text())["cells"]
    assert cells["energy/digits/MLP/seed=0"]["error"] == (
        "LookupError: needs accuracy/digits/MLP/seed=0, which failed or was not run"
    )
