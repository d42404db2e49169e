"""glai federate in Flower's simulation engine: a model that loads, an interrupt, going on."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

import glai_native as glai
from glai_native.cli.main import main

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")

from glai_native.federated.partition import Split


def test_simulation_of_three_clients(tmp_path, capsys):
    """End to end, in Flower's engine: the command line, the digits, a model that loads."""
    pytest.importorskip("ray", reason="Flower's simulation engine is not installed")
    pytest.importorskip("flwr_datasets", reason="Flower's partitioners are not installed")
    out = tmp_path / "model"
    options = ["--clients", "3", "--hidden", "8", "--workers", "2", "--rounds", "2", "--l2", "1", "--json"]
    assert main(["federate", "--out", str(out), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [done["replied"] for done in report["rounds"]] == [3]
    assert report["rounds"][0]["samples"] == report["data"]["train"] == 1347
    assert report["test"] > 0.9
    assert report["rounds"][0]["bytes_up"] == 3 * (8 * (585 * 586 // 2 + 5850 + 10) + 8 * 90 + 8)
    model = glai.GLAI.load(out)
    assert model.structure_id == report["structure"]["structure_id"]
    assert model.estimator.class_labels == list(range(10))
    split = Split(None, 3)
    whole = glai.PathStatistics(9, 64, 10, structure_id=model.structure_id)
    for party in (split.party(i) for i in range(3)):
        whole.update(model.selector.project(party.x), model.selector.gates(party.x), party.y)
    torch.testing.assert_close(
        model.statistics.solve(1.0).weight, whole.solve(1.0).weight, rtol=1e-8, atol=1e-8
    )
    assert main(["federate", "--out", str(out), *options]) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err


def test_resume_refuses_where_nothing_is(tmp_path, capsys):
    out = tmp_path / "nofed"
    assert main(["federate", "--resume", "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"glai federate: nothing to resume in {out}\n"
    assert not out.exists()


@pytest.mark.parametrize("kept", [False, True])
def test_an_interrupt_leaves_a_folder_to_resume_or_none(tmp_path, kept):
    """In Flower's engine: one sentence, status 130, at once; rounds that are done are kept."""
    pytest.importorskip("ray", reason="Flower's simulation engine is not installed")
    out = tmp_path / "model"
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from glai_native.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    options = ["--clients", "3", "--hidden", "8", "--workers", "2", "--rounds", "500", "--method", "samples"]
    if not kept:
        options += ["--epochs", "100000"]  # the first round does not end
    command = [sys.executable, "-c", code, "federate", "--out", str(out), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as glai_federate:
        until = time.monotonic() + 120
        while time.monotonic() < until and not _rounds_in(out) >= kept:
            time.sleep(0.1)
        glai_federate.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        _, errors = glai_federate.communicate(timeout=60)
    assert time.monotonic() - interrupted < 30  # threads were not waited for
    assert glai_federate.returncode == 130
    if kept:
        assert errors == f"glai federate: interrupted, --resume goes on in {out}\n"
        assert glai.GLAI.load(out).estimator.provenance["federation"]["rounds"]
    else:
        assert errors == "glai federate: interrupted before the first round was done\n"
        assert not out.exists()


def _rounds_in(folder):
    """Rounds that a federation's folder states; -1 where there is none."""
    try:
        return len(glai.GLAI.load(folder).estimator.provenance["federation"]["rounds"])
    except FileNotFoundError:
        return -1
