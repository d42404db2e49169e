"""The claims of re-training and merging: partitions, increments, and a run of both on little data."""

import json
import math

import pytest
import torch

from glai_bench import claims
from glai_bench.claims import __main__ as reproduce
from glai_bench.claims import figures, merging, retraining, retraining_tables, trainings


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


@pytest.mark.parametrize("kind", ["identical", "dirichlet"])
@pytest.mark.parametrize("n_parties", [2, 5, 10])
def test_a_partition_gives_each_sample_to_one_party(kind, n_parties):
    y = torch.arange(1000) % 7
    parties = merging.partition(y, kind, n_parties, seed=3)
    assert len(parties) == n_parties
    assert torch.cat(parties).sort().values.equal(torch.arange(1000))
    assert min(map(len, parties)) >= 10
    again = merging.partition(y, kind, n_parties, seed=3)
    assert all(a.equal(b) for a, b in zip(parties, again, strict=True))
    counts = torch.stack([torch.bincount(y[ids], minlength=7) for ids in parties])
    spread = counts.max(0).values - counts.min(0).values
    assert spread.max() <= 1 if kind == "identical" else spread.min() > 1


def test_outputs_that_are_added_leave_the_others():
    mlp = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    x = torch.randn(5, 3)
    wider = retraining._with_outputs(mlp, 6)
    assert wider(x).shape == (5, 6)
    torch.testing.assert_close(wider(x)[:, :2], mlp(x))


def test_forgotten_is_what_was_known_and_is_not():
    after = [{"by increment": [0.9]}, {"by increment": [0.7, 0.8]}, {"by increment": [0.5, 0.6, 1.0]}]
    assert retraining_tables._forgotten(after) == pytest.approx((0.4 + 0.2) / 2)


def test_verdicts_rest_on_the_paired_test():
    noisy, steady = [0.90, 0.92, 0.91, 0.95], [0.91, 0.91, 0.94, 0.93]
    assert figures.p_value(noisy, steady) > 0.05
    assert not figures.worse(noisy, steady)
    assert figures.worse([0.8, 0.81, 0.79], [0.9, 0.912, 0.9])
    assert figures.better([0.9, 0.912, 0.9], [0.8, 0.81, 0.79])
    # One seed: nothing can be told, so a smaller mean is no success, and a larger one not significant.
    assert math.isnan(figures.p_value([0.9], [0.8]))
    assert figures.worse([0.8], [0.9])
    assert not figures.better([0.9], [0.8])
    assert [figures.verdict(cases) for cases in ([True], [True, False], [False])] == [
        "reproduced",
        "partly",
        "not",
    ]


def test_both_claims_run_and_are_told(monkeypatch, tmp_path):
    tiny = trainings.Plan(None, 4, 8, 64, 64, 1, (3e-3,), 1)
    monkeypatch.setitem(trainings.QUICK, "digits", tiny)
    output = tmp_path / "results.json"
    command = ["--quick", "--threads", "1", "--data-sets", "digits", "--claims", "retraining", "merging"]
    assert reproduce.main([*command, "--output", str(output)]) == 0
    cells = json.loads(output.read_text())["cells"]
    results = {key: cell["result"] for key, cell in cells.items()}
    exact = [
        result[side]["difference from joint training"]
        for result in results.values()
        for side in ("GLAI, statistics", "GLAI, random gates, statistics")
        if "difference from joint training" in result.get(side, {})
    ]
    assert len(exact) == 2 * 2 + 6
    assert max(exact) <= 1e-8
    told = claims.load("retraining").tables(results)
    assert "**Increments (new classes each) forget nothing, by statistics: reproduced**" in told
    assert "**Statistics merge exactly: reproduced**" in claims.load("merging").tables(results)
    assert claims.load("merging").tables({}) == claims.load("retraining").tables({}) == ""
