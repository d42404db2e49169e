"""solver="auto": what is tried, what the held-out samples take of it, a budget, and rates that were too large."""

import math
import time

import pytest
import torch

import glai_native as glai
from glai_native.solvers import choice
from glai_native.solvers.choice import Candidate, list_candidates
from glai_native.solvers.solution import Solution
from glai_native.training import choosing
from glai_native.training.choosing import Attempt, choose

D, C = 4, 3


def rings(n=2200, seed=0):
    """No linear model separates them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator)
    radius = x[:, :2].norm(dim=1)
    return x, (radius > 0.9).long() + (radius > 1.6).long()


@pytest.fixture(scope="module")
def selector():
    torch.manual_seed(0)
    mlp = torch.nn.Sequential(torch.nn.Linear(D, 24), torch.nn.ReLU(), torch.nn.Linear(24, C))
    return glai.train_structure(mlp, *rings(), progress=False, monitor=glai.StructureMonitor(max_epochs=6))


def listed(*arguments, **options):
    return [(one.solver, one.kind) for one in list_candidates(*arguments, **options)]


def test_candidates_of_a_new_model(selector, monkeypatch):
    loop, sums, dual = ("sgd", "full paths"), ("statistics", "units"), ("dual", "full paths")
    assert listed(selector, None, 3000, C) == [loop, sums, dual]
    assert listed(selector, None, 1000, C) == [dual]
    assert listed(selector, None, 1000, C, options=["epochs"]) == [loop]
    assert listed(selector, None, 20_000, C) == [loop, sums]
    assert listed(selector, None, 10**9, C) == [loop]
    assert listed(selector, None, 3000, C, options=["epochs"]) == [loop]
    assert listed(selector, None, 3000, C, options=["l2"]) == [sums, dual]
    assert listed(selector, None, 3000, C, options=["n_centres"]) == [dual]
    assert listed(selector, None, 10**9, C, options=["l2"]) == [("statistics", "full paths")]
    monkeypatch.setattr(choice, "free_memory", lambda device: 1000)
    assert listed(selector, None, 1000, C) == [loop, sums]
    monkeypatch.setattr(choice, "FULL_PATH_NUMBERS", 100)
    assert listed(selector, None, 3000, C) == [("sgd", "units"), sums]


def test_a_model_keeps_its_kind(selector):
    paths = glai.PathEstimator.from_selector(selector)
    assert listed(selector, paths, 3000, C) == [("sgd", "full paths"), ("dual", "full paths")]
    units = glai.PathEstimator.of_units(selector, C)
    assert listed(selector, units, 3000, C) == [("sgd", "units"), ("statistics", "units")]
    directed = glai.PathEstimator.from_selector(selector, glai.output_directions(selector))
    assert listed(selector, directed, 3000, C) == [("sgd", "output directions")]


def test_a_pruned_structure_has_no_units():
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(D, 6),
        torch.nn.ReLU(),
        torch.nn.Linear(6, 5),
        torch.nn.ReLU(),
        torch.nn.Linear(5, C),
    ]
    selector = glai.PathSelector(torch.nn.Sequential(*layers))
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    pruned = glai.prune(model, selector.unit_gates(rings()[0]), keep=0.5).selector
    assert pruned.kept_paths is not None
    assert listed(pruned, None, 3000, C) == [("sgd", "full paths"), ("dual", "full paths")]


def scored(split, hits):
    """Return attempts that hit so many of the first held-out samples, by solver, and what was tried."""
    tried = []

    def attempt(candidate, part, until):
        tried.append((candidate.solver, len(part.whole)))
        scores = (torch.arange(len(split.held_out)) < hits[candidate.solver]).double()
        return Attempt(candidate, None, Solution(None, scores), float(scores.mean()), 0.0)

    return attempt, tried


@pytest.fixture
def split(selector):
    x, y = rings(1000)
    samples = glai.solvers.samples.Samples.of_raw("test", selector, x, y, C)
    return glai.solvers.solution.Split(samples, samples[torch.arange(900)], samples[torch.arange(900, 1000)])


@pytest.mark.parametrize(
    ("hits", "taken"),
    [
        ({"sgd": 90, "statistics": 60, "dual": 70}, "sgd"),
        ({"sgd": 90, "statistics": 60, "dual": 89}, "dual"),  # the loop was stopped by these samples
        ({"sgd": 50, "statistics": 60, "dual": 55}, "statistics"),
        ({"sgd": 60, "statistics": 60, "dual": 60}, "statistics"),
    ],
)
def test_held_out_samples_decide(split, hits, taken):
    candidates = [Candidate(solver, "full paths") for solver in ("sgd", "statistics", "dual")]
    attempt, tried = scored(split, hits)
    best, compared = choose(candidates, split, attempt, 0)
    assert best.candidate.solver == taken
    assert tried == [("sgd", 1000), ("statistics", 1000), ("dual", 1000)]
    assert compared == "held-out samples decided, " + ", ".join(
        f"{solver} of full paths {hits[solver] / 100:.4g}" for solver in hits
    )


def test_closed_forms_alone_are_compared(split):
    candidates = [Candidate("statistics", "units"), Candidate("dual", "full paths")]
    for hits, taken in (
        ({"statistics": 80, "dual": 70}, "statistics"),
        ({"statistics": 60, "dual": 70}, "dual"),
    ):
        attempt, _ = scored(split, hits)
        assert choose(candidates, split, attempt, 0)[0].candidate.solver == taken


def test_many_samples_are_tried_on_a_part(split, monkeypatch):
    monkeypatch.setattr(choosing, "TRIED_ON_ALL", 500)
    monkeypatch.setattr(choosing, "TRIED_ON", 200)
    candidates = [Candidate("sgd", "full paths"), Candidate("statistics", "units")]
    attempt, tried = scored(split, {"sgd": 90, "statistics": 60})
    best, compared = choose(candidates, split, attempt, 0)
    assert tried == [("sgd", 200), ("statistics", 200), ("sgd", 1000)]
    assert "after 200 others" in compared
    assert best.candidate.solver == "sgd"


def test_the_dual_of_many_samples_waits_for_another_closed_form(split, monkeypatch):
    monkeypatch.setattr(choosing, "DUAL_AT_ONCE", 500)
    candidates = [Candidate(solver, "full paths") for solver in ("sgd", "statistics", "dual")]
    for hits, solvers in ((60, ["sgd", "statistics"]), (89, ["sgd", "statistics", "dual"])):
        attempt, tried = scored(split, {"sgd": 90, "statistics": hits, "dual": hits})
        choose(candidates, split, attempt, 0)
        assert [solver for solver, _ in tried] == solvers


def test_what_would_end_too_late_is_not_tried(split):
    candidates = [Candidate("sgd", "full paths"), Candidate("statistics", "units", 1e30)]
    attempt, tried = scored(split, {"sgd": 60, "statistics": 90})
    best, _ = choose(candidates, split, attempt, 0, time.monotonic() + 60)
    assert (best.candidate.solver, len(tried)) == ("sgd", 1)


def test_nothing_held_out(split):
    candidates = [Candidate("sgd", "full paths"), Candidate("dual", "full paths", 1e9)]
    attempt, tried = scored(split, {"sgd": 1, "dual": 1})
    whole = glai.solvers.solution.Split(split.whole, split.whole, None)
    choose(candidates, whole, attempt, 0)
    choose(candidates, whole, attempt, 0, time.monotonic() + 0.01)
    assert [solver for solver, _ in tried] == ["dual", "sgd"]


def test_a_candidate_that_fails_is_said(split):
    candidates = [Candidate("sgd", "full paths"), Candidate("statistics", "units")]
    attempt, _ = scored(split, {"statistics": 60})

    def failing(candidate, part, until):
        if candidate.solver == "sgd":
            raise FloatingPointError("the loss is nan")
        return attempt(candidate, part, until)

    best, compared = choose(candidates, split, failing, 0)
    assert best.candidate.solver == "statistics"
    assert "sgd of full paths failed, statistics of units 0.6" in compared
    with pytest.raises(FloatingPointError):
        choose(candidates[:1] * 2, split, failing, 0)


def test_auto_says_what_it_compared(selector, capsys):
    x, y = rings()
    result = glai.fit(selector, x, y)
    assert "held-out samples decided, sgd of full paths 0." in result.reason
    assert f"{result.solver} of " in result.reason
    assert result.reason in capsys.readouterr().err
    assert result.score > result.linear_score


def test_a_model_is_tried_on_copies_and_trained_in_place(selector):
    x, y = rings()
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    numbers = model.estimator.weight
    result = glai.fit(model, x, y, progress=False)
    assert result.model is model
    assert model.estimator.weight is numbers
    assert "sgd of full paths" in result.reason
    assert "dual of full paths" in result.reason


def test_a_budget_ends_the_loop(selector):
    x, y = rings()
    result = glai.fit(selector, x, y, solver="sgd", budget=1e-6, progress=False)
    assert len(result.history) == 1
    with pytest.raises(ValueError, match="budget must be seconds > 0 or None, got 0"):
        glai.fit(selector, x, y, budget=0, progress=False)
    learner = glai.GLAIClassifier(budget=1e-6).fit(x, y)
    assert learner.result_.solver == "sgd"
    with pytest.raises(ValueError, match="seconds must be > 0"):
        glai.StructureMonitor(seconds=-1)


def test_a_rate_that_is_too_large_is_made_smaller(selector):
    """Unit features far from one make the loop's own rate diverge."""
    x, y = rings()
    grown = glai.GLAI(selector, glai.PathEstimator.from_selector(selector, "units"))
    wide = glai.fit(grown, x * 30, y, solver="sgd", epochs=10, progress=False)
    assert wide.history[-1].loss <= wide.history[0].loss
    begun = [numbers.detach().clone() for numbers in grown.estimator.parameters()]
    kept = glai.fit(grown, x * 30, y, solver="sgd", epochs=1, learning_rate=1e3, progress=False)
    assert "whose numbers are kept" in kept.reason
    assert all(map(torch.equal, begun, grown.estimator.parameters()))
    assert math.isfinite(kept.score)
