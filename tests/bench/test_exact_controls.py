"""The field's learners, as the exact head is held against them: each is what its paper says, on small data."""

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from glai_bench.exact.controls import ACIL, NearestClassMean, RanPAC, StreamingLDA
from glai_bench.exact.federated_controls import AFL, FedAvg, dirichlet_clients
from glai_bench.exact.streams import read, stream


@pytest.fixture(scope="module")
def digits():
    return stream(read("digits", None), 5, 0)


def learnt(learner, tasks):
    for x, y in tasks:
        learner.learn(x, y)
    learner.solve()
    return learner


def accuracy(learner, data):
    return float((learner.scores(data.x_test).argmax(1) == data.y_test).double().mean())


def test_tasks_bring_new_classes_and_lose_no_sample(digits):
    x, _ = digits.joint()
    assert (len(x), len(digits.tasks), digits.n_classes) == (1300, 5, 10)
    assert [sorted(of_task.unique().tolist()) for _, of_task in digits.tasks] == [
        [0, 1], [2, 3], [4, 5], [6, 7], [8, 9]
    ]  # fmt: skip
    assert [len(of_class.unique()) for _, of_class in digits.one_class_a_task()] == [1] * 10
    again, other = stream(read("digits", None), 5, 0), stream(read("digits", None), 5, 1)
    assert torch.equal(again.joint()[0], x)
    assert not torch.equal(other.joint()[0], x)


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (lambda d, c: RanPAC(d, c, 500, 0), 0.93),
        (lambda d, c: ACIL(d, c, 500, 0), 0.93),
        (StreamingLDA, 0.9),
        (NearestClassMean, 0.85),
    ],
)
def test_learners_do_not_forget(digits, make, least):
    learner = learnt(make(digits.in_features, digits.n_classes), digits.tasks)
    assert accuracy(learner, digits) > least


def test_the_recursion_of_acil_is_joint_ridge_regression(digits):
    learner = learnt(ACIL(digits.in_features, digits.n_classes, 60, 0), digits.tasks)
    x, y = digits.joint()
    features = learner.features(x)
    penalty = ACIL(digits.in_features, digits.n_classes, 60, 0)._penalty(*digits.tasks[0])
    system = features.T @ features + penalty * torch.eye(60, dtype=torch.float64)
    joint = torch.linalg.solve(system, features.T @ torch.nn.functional.one_hot(y).double())
    torch.testing.assert_close(learner.weight, joint, rtol=1e-6, atol=1e-8)


def test_streaming_lda_is_lda(digits):
    x, y = digits.joint()
    learner = learnt(StreamingLDA(digits.in_features, digits.n_classes), digits.tasks)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.1] * 10).fit(x.numpy(), y.numpy())
    ours = learner.scores(digits.x_test).argmax(1).numpy()
    assert (ours == theirs.predict(digits.x_test.numpy())).mean() > 0.98


def test_afl_of_any_clients_is_least_squares(digits):
    x, y = digits.joint()
    x = x[
        :, (x > 0).double().mean(0) > 0.2
    ].double()  # no pixel that is hardly ever set: least squares is unique
    clients = dirichlet_clients(x, y, 4, 0.1, 0)
    assert sum(len(rows) for rows, _ in clients) == len(x)
    weight = AFL(clients, digits.n_classes).weight
    joint = torch.linalg.lstsq(x, torch.nn.functional.one_hot(y).double()).solution
    torch.testing.assert_close(weight, joint, rtol=1e-5, atol=1e-7)


def test_federated_averaging_learns(digits):
    clients = dirichlet_clients(*digits.joint(), 3, 10.0, 0)
    torch.manual_seed(0)
    assert accuracy(FedAvg(clients, digits.n_classes, 1, 0), digits) > 0.7
