"""Where there is nothing to learn, fit says so: nobody has seen the samples that it judges by."""

import re

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.cli.main import main
from glai_native.data.labelled import load_data
from glai_native.training import fitting, new_structure
from glai_native.training.comparing import compare, name_of_control
from glai_native.training.holding_out import rows_held_out

CLAIMS = ("better than", "WORSE")


@pytest.mark.parametrize("solver", ["dual", "sgd", "statistics"])
@pytest.mark.parametrize("seed", range(4))
def test_noise_is_not_learnt_better_or_worse(solver, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(400, 8)).astype(np.float32)
    told = {"solver": solver, "structure_epochs": 10, "random_state": seed}
    for learner, y in (
        (glai.GLAIClassifier, generator.integers(0, 2, 400)),
        (glai.GLAIRegressor, generator.normal(size=400)),
    ):
        model = learner((16,), **told).fit(x, y)
        assert "the linear model without gates" in model.result_.reason
        assert not any(claim in model.result_.reason for claim in CLAIMS), model.result_.reason
        if learner is glai.GLAIClassifier:  # and it is as uncertain as it should be
            assert model.predict_proba(x).max(1).mean() < 0.75


def test_the_structure_has_not_seen_what_is_held_out(monkeypatch, tmp_path):
    seen = []

    whole = new_structure.train_structure

    def train(mlp, x, y, *arguments, **options):
        seen.append((x, y))
        return whole(mlp, x, y, *arguments, **options)

    monkeypatch.setattr(new_structure, "train_structure", train)
    data = load_data(None)
    x, y = data.x_train, data.y_train
    train, held_out = rows_held_out(y, 0.1, 0)
    assert (len(train), len(held_out)) == (1212, 135)
    model = glai.GLAIClassifier((8,), structure_epochs=1).fit(x.numpy(), y.numpy())
    assert (
        main(["train", "digits", "--hidden", "8", "--structure-epochs", "1", "--out", str(tmp_path / "m")])
        == 0
    )
    for part in seen:
        assert torch.equal(part[0], x[train])
        assert torch.equal(part[1], y[train])
    # And the solver is judged by those held out: the same figures from outside
    outcome = glai.fit(model.model_.selector, x, y, validation=0.1, progress=False)
    assert outcome.score == model.result_.score
    everything = glai.GLAIClassifier((8,), structure_epochs=1, validation_fraction=0).fit(
        x.numpy(), y.numpy()
    )
    assert torch.equal(seen[-1][0], x)
    assert everything.result_.score != everything.result_.score  # NaN: nothing was held out


def test_nor_has_it_where_samples_are_weighted_or_repeated(monkeypatch):
    seen = []
    whole = new_structure.train_structure
    monkeypatch.setattr(
        new_structure,
        "train_structure",
        lambda mlp, x, y, *a, **o: (seen.append(x), whole(mlp, x, y, *a, **o))[1],
    )
    judged = []
    compared = fitting.sample_scores
    monkeypatch.setattr(
        fitting,
        "sample_scores",
        lambda estimator, samples: (judged.append(samples), compared(estimator, samples))[1],
    )
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 3)).astype(np.float32)[generator.integers(0, 200, 400)]
    y, weight = (x[:, 0] > 0).astype(int), generator.integers(0, 3, 400)
    for told in ({}, {"sample_weight": weight}):
        glai.GLAIClassifier((8,), structure_epochs=1).fit(x, y, **told)
        rows = {tuple(row.tolist()) for row in seen.pop()}
        held_out = judged.pop().z
        # z is centred and scaled: back to x, to rounding
        mean, scale = (b for b in glai.InputProjection.fit(torch.tensor(sorted(rows))).buffers())
        back = held_out / scale + mean
        nearest = torch.cdist(back, torch.tensor(sorted(rows))).min(1).values
        assert float(nearest.min()) > 1e-4
        assert len(held_out) >= 10


def test_the_verdict_of_paired_scores():
    ones, zeros = torch.ones(200, dtype=torch.float64), torch.zeros(200, dtype=torch.float64)
    half = torch.arange(200).double() % 2
    said = {"classes": True, "control": "the control"}
    assert compare(ones, half, None, **said).sentence.startswith("better than the control (1 against 0.5 ± ")
    assert compare(zeros, half, None, **said).sentence.startswith("WORSE than the control")
    assert "the control is as good within one standard error" in compare(half, half, None, **said).sentence
    few = half.clone()
    few[:24:2] = 1  # 12 of 200 more: 1.7 standard errors of a proportion, and all one way
    assert compare(few, half, None, **said).sentence.startswith("better than")
    swapped = 1 - half
    swapped[:16] = 1  # 8 more, of 192 that differ
    assert "may be as good, the difference is within three" in compare(swapped, half, None, **said).sentence
    assert "too few to compare" in compare(ones[:19], half[:19], None, **said).sentence
    unknown = compare(None, half, None, **said)
    assert unknown.score != unknown.score
    assert unknown.sentence == "not compared with the control: its own score is not known"


def test_weights_of_paired_scores_are_repetitions():
    scores, linear = (torch.arange(60).double() % n < 2 for n in (3, 4))
    weight = 1 + torch.arange(60) % 3
    found = compare(scores.double(), linear.double(), weight.double(), classes=True, control="it")
    rows = torch.arange(60).repeat_interleave(weight)
    repeated = compare(scores[rows].double(), linear[rows].double(), None, classes=True, control="it")
    assert (found.score, found.linear_score) == pytest.approx((repeated.score, repeated.linear_score))


def test_a_control_on_fewer_components_is_named_so():
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    model = glai.GLAIClassifier((4,), n_components=2, structure_epochs=1).fit(x.numpy(), y.numpy())
    assert "the linear model without gates on the same 2 of 6 components" in model.result_.reason
    assert (
        name_of_control(glai.PathSelector(torch.nn.Sequential(*layers(6, 4))))
        == "the linear model without gates"
    )


def layers(width, units):
    return torch.nn.Linear(width, units), torch.nn.ReLU(), torch.nn.Linear(units, 2)


@pytest.mark.parametrize(
    ("rate", "sentence"),
    [
        (10.0, "the training diverged, its loss went from .* to .*, pass a smaller learning_rate"),
        (1e-30, "the training loss stayed at .*, there was nothing left to learn"),
        (0.05, "the training loss went from .* to .*, what is learnt of those samples does not carry over"),
    ],
)
def test_epochs_that_brought_nothing_say_what_they_did(rate, sentence):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 5, generator=generator), torch.randint(0, 2, (300,), generator=generator)
    torch.manual_seed(0)
    selector = glai.PathSelector(torch.nn.Sequential(*layers(5, 32)))
    model = glai.GLAI(selector, glai.PathEstimator(33, 5, 2))
    result = glai.fit(model, x, y, solver="sgd", epochs=40, learning_rate=rate, progress=False)
    assert "no epoch improved on the start, whose numbers are kept, held-out loss" in result.reason
    assert not any(bool(numbers.any()) for numbers in model.estimator.parameters())
    assert re.search(sentence, result.reason), result.reason


def test_what_steps_leave_unknown_is_judged_by_a_solution_without_it():
    x, y = make_rings(1500)
    torch.manual_seed(0)
    selector = glai.PathSelector(torch.nn.Sequential(*layers(2, 24)))
    for options in ({"memory": 9_000_000, "l2": 30.0}, {"n_centres": 150}):
        result = glai.fit(selector, x, y, solver="dual", progress=False, **options)
        assert result.score > 0.7
        assert "NOT solved" not in result.reason
        assert (
            result.model.estimator.temperature
            != glai.fit(
                selector, x, y, solver="dual", validation=0, progress=False, **options
            ).model.estimator.temperature
        )
    poor = glai.fit(selector, x, y, solver="dual", progress=False, memory=9_000_000, l2=0.05)
    assert (
        "its equations are NOT solved, conjugate gradients stopped at a relative residual of" in poor.reason
    )


def make_rings(n=300):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return x, (x.norm(dim=1) > 1.1).long()
