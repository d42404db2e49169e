"""The program ``glai`` itself, whose imports take seconds: an interrupt is one sentence from the first of them on."""

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import glai_launcher
from glai_native.cli.commands import COMMANDS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
MODULE, FUNCTION = PROJECT["project"]["scripts"]["glai"].split(":")
# As pip writes it, with a word on standard output when the imports that take seconds begin.
SCRIPT = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # where a job in the background would ignore it

class Announce:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print("importing", flush=True)

sys.meta_path.insert(0, Announce())
sys.argv = ["glai", "train", "nowhere", "--out", "model"]
from {MODULE} import {FUNCTION}
sys.exit({FUNCTION}())
"""


@pytest.fixture
def keyboard():
    """SIGINT as it was, afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_an_interrupt_of_the_imports_is_one_sentence(delay):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as glai:
        assert glai.stdout.readline() == "importing\n"
        time.sleep(delay)
        glai.send_signal(signal.SIGINT)
        output, errors = glai.communicate(timeout=120)
    assert output == ""
    if glai.returncode == 2:  # done before
        assert re.fullmatch("glai train: nowhere: .*\n", errors)
    else:
        assert glai.returncode == 130
        assert re.fullmatch("glai(?: train)?: interrupted\n", errors)


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["glai", *arguments])
    return glai_launcher.main()


def test_runs_the_command(keyboard, monkeypatch, capsys):
    assert run(monkeypatch, "inspect", "--json") == 0
    assert run(monkeypatch, "inspect", "nowhere") == 2
    assert re.fullmatch("glai inspect: .*\n", capsys.readouterr().err)
    with pytest.raises(SystemExit):
        run(monkeypatch, "--version")


def test_an_interrupt_before_the_command_is_known(keyboard, monkeypatch, capfd):
    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("glai_native.cli.main._parser", interrupt)
    monkeypatch.setattr("os._exit", sys.exit)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch)
    assert stop.value.code == 130
    assert capfd.readouterr().err == "glai: interrupted\n"


def test_a_command_hears_the_interrupt_itself(keyboard, monkeypatch, capfd):
    monkeypatch.setattr("glai_native.cli.demo.steps.run_demo", lambda *_: signal.raise_signal(signal.SIGINT))
    assert run(monkeypatch, "demo") == 130
    assert capfd.readouterr().err == "glai demo: interrupted\n"


def test_a_job_in_the_background_goes_on(keyboard, monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    monkeypatch.setattr("glai_native.cli.main._parser", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(AttributeError):  # reached: there is no parser
        run(monkeypatch)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--help"], 0),
        (["--version"], 0),
        (["trian"], 2),
        *(([command, "--help"], 0) for command in COMMANDS),
        *(([command, "--no-such-option"], 2) for command in ("train", "prune", "merge", "federate")),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_help_and_refusals_wait_for_no_import(arguments, code):
    """They take a tenth of a second where torch takes seconds."""
    program = f"""if True:
        import sys
        sys.path[:0] = {sys.path!r}
        import glai_launcher
        sys.argv = ["glai", *{arguments!r}]
        try:
            glai_launcher.main()
        finally:
            slow = {{"torch", "numpy", "sklearn", "rich", "safetensors"}} & set(sys.modules)
            assert not slow, slow
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert "glai" in (done.stderr if code else done.stdout)


def test_without_arguments_it_shows_its_help(keyboard, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch)
    output, errors = capsys.readouterr()
    assert output == ""
    for command, (summary, _) in COMMANDS.items():
        assert command in errors
        assert summary.split(",")[0] in errors


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("trian", "'train'"), ("inspct", "'inspect'"), ("marge", "'merge'"), ("help", "'--help'")],
)
def test_a_command_that_is_none_is_asked_back(keyboard, monkeypatch, capsys, typed, meant):
    for further in ([], ["--help"], ["data.npz", "--out", "model"]):
        with pytest.raises(SystemExit, match="2"):
            run(monkeypatch, typed, *further)
        error = capsys.readouterr().err.splitlines()[-1]
        assert error == f"glai: error: argument COMMAND: invalid choice: {typed!r}, did you mean {meant}?"
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "xyz")
    assert "(choose from 'demo', 'train'" in capsys.readouterr().err


def test_help_that_nobody_reads_is_no_error():
    program = f"import sys; sys.path[:0] = {sys.path!r}; sys.argv = ['glai', '--help']; import time; time.sleep(0.3)"
    program += "; import glai_launcher; sys.exit(glai_launcher.main())"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as glai:
        glai.stdout.close()
        assert glai.stderr.read() == ""


@pytest.mark.parametrize("coding", ["ascii", "latin-1"])
def test_an_output_that_lacks_characters_ends_no_command(tmp_path, coding):
    """``LC_ALL=C`` without coercion: what was trained is saved, and the status says so."""
    environment = os.environ | {"PYTHONIOENCODING": f"{coding}:strict", "OMP_NUM_THREADS": "1"}
    names = np.array(["grün", "köln→"])
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.savez(tmp_path / "dätä→.npz", x=x, y=names[np.arange(40) % 2])
    program = f"import sys; from {MODULE} import {FUNCTION}; sys.exit({FUNCTION}())"
    for arguments in (["train", "dätä→.npz", "--out", "möd→"], ["inspect", "möd→"], ["train", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert b"Traceback" not in done.stderr
