"""CurrentSolution: never stale, whoever changes the sums."""

import pickle

import pytest
import torch

import glai_native as glai
from glai_native.solvers.exact import current
from glai_native.solvers.exact.current import CurrentSolution

N, C = 90, 3

pytestmark = pytest.mark.filterwarnings("ignore:merge")


@pytest.fixture
def statistics(generator):
    x, y = torch.randn((N, 5), generator=generator), torch.arange(N) % C
    made = glai.IntegerStatistics(glai.IntegerFeatures.fit(x, 14), C)
    made.update(x, y)
    return made, x, y


def test_it_is_that_of_the_sums_as_they_are(statistics, monkeypatch):
    sums, x, y = statistics
    solution, calls = CurrentSolution(sums), []
    solve = current.solve_sums
    monkeypatch.setattr(current, "solve_sums", lambda *a, **n: calls.append(1) or solve(*a, **n))
    first = solution.of(1.0)
    assert solution.of(1.0) is solution.known(1.0) is first
    with pytest.raises(ValueError, match="in row 0"):
        sums.downdate(x[:1] + 1, y[:1])
    assert solution.known(2.0) is None
    assert solution.known(1.0) is first  # what was refused has changed nothing
    for change in (
        lambda: sums.update(x[:2] + 1, y[:2]),
        lambda: sums.downdate(x[:3], y[:3]),
        lambda: sums.merge(sums.copy()),
        lambda: sums.add_outputs(1),
        lambda: sums.permute_outputs(torch.tensor([2, 0, 1, 3])),
    ):
        change()
        assert solution.known(1.0) is None
        expected = solve(sums.feature_sums(), 1.0).weight
        torch.testing.assert_close(solution.of(1.0).weight, expected, rtol=1e-8, atol=1e-10)
    assert len(calls) < 6  # some were brought up to date
    assert solution.of(2.0).l2 == 2.0
    assert torch.equal(pickle.loads(pickle.dumps(solution)).known(2.0).weight, solution.of(2.0).weight)
