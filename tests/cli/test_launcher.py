"""The program ``glai`` itself, whose imports take seconds: an interrupt is one sentence from the first of them on."""

import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import glai_launcher

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
