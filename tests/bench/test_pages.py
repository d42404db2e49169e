"""The pages of results are what their reports make of the results beside them, and name what there is."""

import importlib
import re
import shutil
from pathlib import Path

import pytest

import glai_bench
from glai_bench.folders import results_folder
from glai_bench.markdown import report_files

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
REPORTS = {
    "cpu": ("cpu", "report"),
    "paths": ("cpu-paths", "ops.path_matrices_report"),
    "solvers": ("solvers", "solvers.report"),
    "steps": ("sgd", "steps.report"),
    "heads": ("heads", "heads.report"),
    "reproduction": ("reproduction", "claims.report"),
    "scale": ("scale", "scale.report"),
    "tables": ("tables", "tables.report"),
}
COMMANDS = ("", "launch_kernels", "ops.path_matrices", "ops.gated_linear", "ops.selector_gates")
COMMANDS += (
    "claims",
    "exact.federated",
    "exact.incremental",
    "heads",
    "scale",
    "solvers",
    "solvers.frozen_structure",
    "steps",
    "tables",
    *(report for _, report in REPORTS.values()),
)


@pytest.mark.parametrize("page", REPORTS)
def test_a_page_is_written_whole_from_its_results(page, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    results, report = REPORTS[page]
    shutil.copy(RESULTS / f"{results}.json", tmp_path)
    importlib.import_module(f"glai_bench.{report}").main(["--results", str(tmp_path / f"{results}.json")])
    text = (tmp_path / f"{page}.md").read_text()
    assert text == (RESULTS / f"{page}.md").read_text()
    pictures = re.findall(r"\]\(([^)]*\.png)\)", text)
    assert {path.name for path in tmp_path.glob("*.png")} == set(pictures)
    assert all((RESULTS / picture).is_file() for picture in pictures)
    for module in re.findall(r"python -m glai_bench(?:\.([\w.]+))?", text):
        assert module in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, monkeypatch, capsys):
    name = f"glai_bench.{command}".rstrip(".")
    package = (Path(glai_bench.__path__[0]) / command.replace(".", "/")).is_dir()
    module = importlib.import_module(f"{name}.__main__" if package else name)
    monkeypatch.setattr("sys.argv", ["nothing", "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    output = capsys.readouterr().out
    assert output.startswith(f"usage: python -m {name} ")
    assert f"python -m {name}" in output.split("\n\n", 1)[1]


def test_results_lie_in_the_checkout_around_us(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="there is no folder bench/results in .* or above it: run this in a"
    ):
        results_folder()
    with pytest.raises(SystemExit, match="2"):
        report_files("a command", None, "cpu.json", None, [])
    assert "name the file" in capsys.readouterr().err
    inside = tmp_path / "checkout" / "python"
    inside.mkdir(parents=True)
    (tmp_path / "checkout" / "bench" / "results").mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert results_folder() == tmp_path / "checkout" / "bench" / "results"
    with pytest.raises(SystemExit, match="2"):
        report_files("a command", None, "cpu.json", None, [])
    assert "cpu.json: there is no such file of results" in capsys.readouterr().err
    (results_folder() / "cpu.json").write_text("{}")
    assert report_files("a command", None, "cpu.json", "paths.md", []) == (
        results_folder() / "cpu.json",
        results_folder() / "paths.md",
    )
