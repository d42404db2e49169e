"""The benchmark of integer_gram: what it times is right, and what it prints."""

import json

import pytest
import torch

from glai_bench.clock import OURS
from glai_bench.exact import gram
from glai_bench.exact.gram_section import gram_section
from glai_bench.instruction_peak import instruction_peak
from glai_native.machine.backend import build_info


def test_a_row_a_case_and_number_of_threads(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gram, "QUICK_SHAPES", ((40, 33),))
    monkeypatch.setattr(gram, "instruction_peak", lambda isa, operands: 100.0)
    before = torch.get_num_threads()
    output = tmp_path / "gram.json"
    arguments = ["--quick", "--threads", "1", "2", "--seconds", "0.01"]
    gram.main([*arguments, "--json", "--output", str(output)])
    assert json.loads(capsys.readouterr().out) == json.loads(output.read_text())
    rows = json.loads(output.read_text())["rows"]
    assert [(row["samples"], row["features"], row["threads"]) for row in rows] == [(40, 33, 1), (40, 33, 2)]
    assert set(rows[0]["ms"]) == {OURS, gram.FLOAT32, gram.FLOAT64, gram.FEW}
    section = gram_section([json.loads(output.read_text())])
    assert section[-3].startswith(f"| {build_info()['cpu_isa']} | 40 | 33 | 1 | ")
    gram.main(arguments)
    printed = " ".join(capsys.readouterr().out.split())
    assert "peak of its instructions: 100 G multiply-adds/s" in printed
    assert torch.get_num_threads() == before


def test_a_wrong_sum_is_noticed():
    features = gram.draw(30, 20)
    with pytest.raises(RuntimeError, match="integer_gram of 30 samples and 20 features is not what float64"):
        gram.forms_of_torch(features, torch.zeros((20, 20), dtype=torch.int64))


def test_no_peak_of_what_is_not_known():
    assert instruction_peak("generic", "uint8") is None
