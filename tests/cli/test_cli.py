"""The command line: figures, pictures, and one sentence where something is wrong."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

import glai_native as glai
from conftest import offer_commands
from glai_native.cli.commands import GROUP
from glai_native.cli.main import main
from glai_native.estimator.parameters import glai_parameters, mlp_parameters, units_for


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "--out", str(folder), "--epochs", "3", "--plot", "--json"]) == 0
    return folder


def test_demo_report(demo_folder):
    report = json.loads((demo_folder / "report.json").read_text())
    names = [model["name"] for model in report["models"]]
    assert names[0] == "linear softmax"
    assert names[1].startswith("MLP")
    assert sum("random gates" in name for name in names) == 2
    assert sum("same gates" in name for name in names) == 2
    mlp = report["models"][1]
    for factor, model in ((1, report["models"][2]), (4, report["models"][5])):
        assert 0.85 * factor < model["total_parameters"] / mlp["total_parameters"] <= factor
        assert model["trained_parameters"] < model["total_parameters"]
    for model in report["models"]:
        assert model["accuracy"] > 0.3  # three epochs; chance is 0.1
        assert len(model["curve"]) == 4
    for structure in report["structures"]:
        assert structure["settled"]
        assert 0 < structure["deviation"] <= 0.5
        assert structure["bytes_per_sample"] == 4 * -(-structure["widths"][0] // 32)
    for row in report["conversion"]:
        assert row["relative_float64"] < 1e-10
        assert row["relative_float32"] < 1e-4
    assert [row["name"] for row in report["merging"]] == ["half A", "half B", "merged", "trained on all"]
    assert report["merging"][2]["samples"] == report["data"]["train"]
    assert len(report["retraining"]) == 3


def test_demo_leaves_a_model_and_its_gates(demo_folder):
    for folder in (demo_folder, demo_folder / "x4"):
        model = glai.GLAI.load(folder)
        store = glai.GateStore.open(folder / "gates")
        assert store.structure_id == model.structure_id
        assert len(store) == int(model.estimator.samples_seen) == 943 + 404
    assert (demo_folder / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_tables_and_a_second_run_in_the_same_folder(demo_folder, capsys):
    assert main(["demo", "--out", str(demo_folder), "--epochs", "1", "--hidden", "32"]) == 0
    output = capsys.readouterr().out
    for heading in ("Models", "Structure", "Re-training", "merged", "Flips per epoch", "±"):
        assert heading in output


def test_demo_data_file(tmp_path, capsys):

    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(120, 5)) + y[:, None], y=y)
    arguments = [
        "demo",
        "--data",
        str(tmp_path / "d.npz"),
        "--out",
        str(tmp_path / "out"),
        "--json",
        "--epochs",
        "2",
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["data"]["classes"] == 3


def test_demo_does_not_touch_a_foreign_folder(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("x")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("glai demo: ")
    assert "not empty" in error
    assert error.count("\n") == 1
    assert main(["demo", "--out", str(tmp_path / "thesis.txt")]) == 2
    assert "must be a folder" in capsys.readouterr().err
    assert main(["demo", "--data", str(tmp_path / "nowhere")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_parameter_counts():
    for d, c, hidden in ((64, 10, 128), (784, 10, 256), (384, 77, 128)):
        for factor in (1, 4):
            budget = factor * mlp_parameters(d, hidden, c)
            units = units_for(d, c, budget)
            total, trained = glai_parameters(d, units, c)
            assert trained == (units + 1) * (d * c + c)
            assert glai_parameters(d, units + 1, c)[0] > budget
            assert total <= budget or units == 1


def test_inspect(demo_folder, capsys):
    assert main(["inspect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(glai.build_info()))
    assert main(["inspect", str(demo_folder), "--json"]) == 0
    model = json.loads(capsys.readouterr().out)
    assert (model["kind"], model["out_features"]) == ("model", 10)
    assert main(["inspect", str(demo_folder / "gates"), "--json"]) == 0
    store = json.loads(capsys.readouterr().out)
    assert (store["kind"], store["samples"]) == ("gate store", 1347)
    assert main(["inspect", str(demo_folder)]) == 0
    assert "structure_id" in capsys.readouterr().out


def test_inspect_refuses(tmp_path, demo_folder, capsys):
    assert main(["inspect", str(tmp_path / "nowhere")]) == 2
    assert main(["inspect", str(tmp_path)]) == 2
    assert "holds neither a model" in capsys.readouterr().err
    shard = tmp_path / "shard-00000000.safetensors"
    shard.write_bytes((demo_folder / "gates" / shard.name).read_bytes()[:-3] + b"")
    assert main(["inspect", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "truncated" in error
    assert "Traceback" not in error


def test_merge(tmp_path, demo_folder, capsys):
    model = glai.GLAI.load(demo_folder)
    model.save(tmp_path / "a")
    with torch.no_grad():
        model.estimator.weight.zero_()
    model.save(tmp_path / "b")
    assert main(["merge", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "c"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples_seen"] == 2 * 1347
    merged = glai.GLAI.load(tmp_path / "c").estimator.weight
    torch.testing.assert_close(merged, glai.GLAI.load(tmp_path / "a").estimator.weight / 2)
    assert main(["merge", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "a")]) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err
    assert main(["merge", str(tmp_path / "a"), str(demo_folder / "x4"), "-o", str(tmp_path / "d")]) == 2
    assert "must share one structure" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


@pytest.mark.usefixtures("further_commands")
@pytest.mark.parametrize("command", [[], ["demo"], ["inspect"], ["merge"], ["bench"]])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    output = capsys.readouterr().out
    assert not command or "examples:" in output


def test_usage_errors(capsys):
    bad = (["--seed", "-1"], ["--seed", "9" * 23], ["--hidden", "0"], ["--epochs", "x"], ["--nonsense"])
    for arguments in (*(["demo", *options] for options in bad), ["merge"], ["nonsense"], []):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_interrupt(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("glai_native.cli.demo.steps.run_demo", interrupt)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "glai demo: interrupted\n"


def test_plot_is_checked_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("glai_native.cli.demo.steps.run_demo", None)  # not reached
    for plot, sentence in (("a.xyz", "must end in .png"), ("nowhere/a.png", "there is no folder")):
        assert main(["demo", "--out", str(tmp_path / "o"), "--plot", str(tmp_path / plot)]) == 2
        assert sentence in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "--out", str(tmp_path / "o"), "--plot"]) == 2
    assert "--plot needs matplotlib" in capsys.readouterr().err


def test_a_report_alone_does_not_make_a_demo_folder(tmp_path, capsys):
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "gates").mkdir()
    (tmp_path / "gates" / "shard-00000000.safetensors").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "no demo made it" in capsys.readouterr().err
    assert (tmp_path / "gates" / "shard-00000000.safetensors").read_text() == "mine"


def test_an_interrupted_demo_can_be_run_again(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("glai_native.cli.demo.steps._Demo.controls", interrupt)
    for _ in range(2):
        assert main(["demo", "--out", str(tmp_path / "o")]) == 130
        assert capsys.readouterr().err.endswith("glai demo: interrupted\n")


def test_out_of_memory_is_one_sentence(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "o"), "--hidden", "1000000000000"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.strip().count("\n") == 0


def test_federate_without_flower(monkeypatch, capsys):
    monkeypatch.setattr("glai_native.cli.federate.importlib.util.find_spec", lambda name: None)
    assert main(["federate"]) == 2
    sentence = "needs flwr, install it with: pip install 'flwr[simulation]>=1.41' 'flwr-datasets>=0.6'"
    assert sentence in capsys.readouterr().err


def test_what_messages_say_to_install_is_what_the_extras_ask_for():
    """By names that an index has: this project's own is on none."""
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {
        requirement for name in ("plot", "energy", "tables", "federated") for requirement in extras[name]
    }
    said = []
    for file in (root / "python").rglob("*.py"):
        said += re.findall(r"pip install ([^\"\n{]+)", file.read_text())
        said += re.findall(r'^FLOWER = "(.*)"$', file.read_text(), re.MULTILINE)
    found = {requirement for words in said for requirement in shlex.split(words)}
    assert found == asked


def test_output_that_nobody_reads_is_no_error():
    code = 'from glai_native.cli.main import main; raise SystemExit(main(["inspect", "--json"]))'
    python = f"{sys.executable} -c '{code}'"
    done = subprocess.run(["bash", "-c", f"{python} | true"], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""


@pytest.mark.usefixtures("further_commands")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["merge", "a", "-o", "b", "--l2", "-3"], "--l2: must be a finite number >= 0 or gcv, got -3"),
        (["merge", "a", "-o", "b", "--l2", "loo"], "--l2: must be a finite number >= 0 or gcv, got 'loo'"),
        (["bench", "--seconds", "0"], "--seconds: must be a finite number > 0, got 0"),
        (["bench", "--seconds", "-1"], "--seconds: must be a finite number > 0, got -1"),
        (["bench", "--minutes", "0"], "--minutes: must be a finite number > 0, got 0"),
    ],
)
def test_arguments_say_what_is_allowed(arguments, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert f"argument {sentence}" in capsys.readouterr().err


@pytest.mark.usefixtures("further_commands")
def test_bench_minutes_are_of_a_gpu(capsys):
    assert main(["bench", "--quick", "--minutes", "1"]) == 2
    assert capsys.readouterr().err == "glai bench: --minutes is only for --device cuda\n"


@pytest.mark.usefixtures("further_commands")
def test_commands_of_other_packages_are_listed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    captured = capsys.readouterr()
    assert re.search(r"^ +bench +time the ops", captured.out, re.MULTILINE)
    assert captured.err == ""


def test_a_broken_package_leaves_the_commands(monkeypatch, capsys):
    """Named in one sentence, where a command of its own may be meant, and not looked for by a command of ours."""
    broken = [("bench", "no_such_package.command:add"), ("two", "pathlib:Path")]
    asked = offer_commands(monkeypatch, [EntryPoint(*point, GROUP) for point in broken])
    assert main(["inspect", "--json"]) == 0
    assert asked == []
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(["bench"])
    assert asked == [{"group": GROUP}]
    first, second, *usage = capsys.readouterr().err.splitlines()
    assert first == (
        "glai: the command 'bench' is left out, no_such_package.command:add failed (ModuleNotFoundError: No module "
        "named 'no_such_package'): reinstall or remove its package"
    )
    assert second.startswith("glai: the command 'two' is left out, pathlib:Path failed (TypeError: ")
    assert "invalid choice: 'bench'" in usage[-1]


def test_the_product_imports_no_benchmark():
    files = list((Path(__file__).parents[2] / "python").rglob("*.py"))
    assert len(files) > 50
    assert [file for file in files if re.search(r"(?:from|import) glai_bench", file.read_text())] == []
