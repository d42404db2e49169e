"""Statistics solved along output directions, against ridge on features made in full."""

import pytest
import torch

import glai_native as glai
from glai_native.ops import oracle as ref
from glai_native.solvers.statistics import cross_validation

# Units per hidden layer, D, C, N.
SHAPES = [((4,), 3, 2, 40), ((33,), 1, 3, 50), ((2, 3), 5, 4, 70), ((3,), 2, 1, 20), ((1,), 2, 3, 1)]


def draw(widths, d, c, n):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn((n, d), generator=generator, dtype=torch.float64)
    gates = glai.path_gates([glai.pack_gates(torch.rand((n, h), generator=generator) < 0.5) for h in widths])
    targets = torch.randint(0, c, (n,), generator=generator)
    directions = torch.randn((gates.n_gates, c), generator=generator, dtype=torch.float64)
    directions[-1] = 0
    return z, gates, targets, directions, torch.rand(n, generator=generator, dtype=torch.float64)


def directed_features(z, gates, directions):
    """[N, C, (P-1)·(D+1) + (D+1)·C] and the penalty of each unknown."""
    width, c = z.shape[1] + 1, directions.shape[1]
    phi = ref.path_features_ref(z, gates.unpack()).view(len(z), -1, width)
    along = torch.einsum("npd,pc->ncpd", phi[:, :-1], directions[:-1]).flatten(2)
    constant = torch.einsum("nd,ce->ncde", phi[:, -1], torch.eye(c, dtype=z.dtype)).flatten(2)
    lengths = directions[:-1].square().sum(1).repeat_interleave(width)
    return torch.cat([along, constant], dim=2), torch.cat([lengths, lengths.new_ones(width * c)])


def directed_ridge(z, gates, targets, directions, l2, weight):
    phi, penalties = directed_features(z, gates, directions)
    values = torch.nn.functional.one_hot(targets, directions.shape[1]).double()
    s = weight.view(-1, 1, 1)
    gram = torch.einsum("ncm,nck->mk", phi * s, phi) + torch.diag(l2 * penalties)
    return torch.linalg.lstsq(gram, torch.einsum("ncm,nc->m", phi * s, values), driver="gelsd").solution


def assert_solution(estimator, expected, n_paths, width):
    u, constant = expected[: (n_paths - 1) * width].view(-1, width), expected[(n_paths - 1) * width :]
    state = estimator.state_dict()
    actual = torch.cat([state["u"], state["beta"].unsqueeze(1)], dim=1)
    torch.testing.assert_close(actual[:-1], u, rtol=1e-7, atol=1e-9)
    assert not bool(actual[-1].any())
    actual = torch.cat([state["constant_weight"], state["constant_bias"].unsqueeze(0)])
    torch.testing.assert_close(actual, constant.view(width, -1), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("without", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ridge(shape, without):
    """Also where a path has no direction: it is left out, its weights are zero."""
    z, gates, targets, directions, weight = draw(*shape)
    if without:
        directions[0] = 0
    statistics = glai.PathStatistics(gates.n_gates, shape[1], shape[2])
    statistics.update(z, gates, targets, weight)
    estimator = statistics.solve(0.4, directions)
    expected = directed_ridge(z, gates, targets, directions, 0.4, weight)
    assert_solution(estimator, expected, gates.n_gates, shape[1] + 1)
    assert torch.equal(estimator.directions, directions)
    assert int(estimator.samples_seen) == len(z)
    phi, _ = directed_features(z, gates, directions)
    torch.testing.assert_close(estimator(z, gates).detach(), phi @ expected, rtol=1e-7, atol=1e-9)


def test_directions_come_after_merging():
    z, gates, targets, directions, weight = draw(*SHAPES[2])
    parts = []
    for rows in (slice(0, 30), slice(30, 70)):
        parts.append(glai.PathStatistics(gates.n_gates, 5, 4))
        parts[-1].update(z[rows], gates[rows], targets[rows], weight[rows])
    estimator = (parts[0] + parts[1]).solve(0.4, directions)
    assert_solution(estimator, directed_ridge(z, gates, targets, directions, 0.4, weight), gates.n_gates, 6)


def brute_force(z, gates, targets, directions, l2, weight):
    """GCV over N·C residuals, and leave-one-out over samples."""
    phi, penalties = directed_features(z, gates, directions)
    values = torch.nn.functional.one_hot(targets, directions.shape[1]).double()
    root = weight.sqrt().view(-1, 1, 1)
    rows = (phi * root).flatten(0, 1)
    hat = rows @ torch.linalg.solve(rows.T @ rows + torch.diag(l2 * penalties), rows.T)
    goal = (values.unsqueeze(2) * root).flatten()
    gcv = (goal - hat @ goal).square().mean() / (1 - hat.trace() / len(goal)) ** 2
    left_out = 0.0
    for i in range(len(z)):
        kept = torch.arange(len(z)) != i
        solution = directed_ridge(z[kept], gates[kept], targets[kept], directions, l2, weight[kept])
        left_out += weight[i] * (values[i] - phi[i] @ solution).square().sum()
    return float(gcv), float(left_out)


@pytest.mark.parametrize("spectrum_size", [4096, 0])
def test_cross_validation_scores(monkeypatch, spectrum_size):
    z, gates, targets, directions, weight = draw((3,), 2, 3, 40)
    statistics = glai.PathStatistics(4, 2, 3)
    statistics.update(z, gates, targets, weight)
    scores = {}

    def spy(function):
        def call(system, *args):
            scores[args[-1]] = function(system, *args)
            return scores[args[-1]]

        return call

    def least(penalties, found):
        scores.update(zip(penalties.tolist(), found.tolist(), strict=True))
        return float(penalties[found.argmin()])

    monkeypatch.setattr(cross_validation, "SPECTRUM_SIZE", spectrum_size)
    monkeypatch.setattr(cross_validation, "_least", least)
    for name in ("_gcv_by_cholesky", "_loo_by_cholesky"):
        monkeypatch.setattr(cross_validation, name, spy(getattr(cross_validation, name)))
    for index, (name, data) in enumerate([("gcv", None), ("loo", [(z, gates, targets, weight)])]):
        scores.clear()
        chosen = statistics.choose_l2(name, directions, data)
        assert scores[chosen] == min(scores.values())
        for l2 in sorted(scores)[8::7]:
            expected = brute_force(z, gates, targets, directions, l2, weight)[index]
            assert scores[l2] == pytest.approx(expected, rel=1e-6)
        assert torch.equal(statistics.solve(name, directions, data).u, statistics.solve(chosen, directions).u)


def test_a_directed_model(tmp_path, selector, samples):
    targets = torch.arange(len(samples)) % 4
    statistics = glai.PathStatistics(selector.n_paths, 6, 4)
    statistics.update(selector.project(samples), selector.gates(samples), targets)
    directions = glai.output_directions(selector)
    model = glai.GLAI(selector, statistics.solve("gcv", directions, dtype=torch.float32))
    model.save(tmp_path)
    assert torch.equal(glai.GLAI.load(tmp_path)(samples), model(samples))
    assert float((model(samples).argmax(1) == targets).float().mean()) > 0.4


def test_refuses(monkeypatch):
    z, gates, targets, directions, _ = draw(*SHAPES[0])
    statistics = glai.PathStatistics(5, 3, 2)
    statistics.update(z, gates, targets)
    with pytest.raises(ValueError, match=r"solve: directions must be floating \[P=5, C=2\]"):
        statistics.solve(1.0, directions[:3])
    with pytest.raises(ValueError, match="the last row of directions"):
        statistics.solve(1.0, directions + 1)
    with monkeypatch.context() as patch:
        patch.setattr("glai_native.machine.memory.free_memory", lambda device: 100)
        with pytest.raises(MemoryError, match="the system of 24 unknowns along directions takes"):
            statistics.solve(1.0, directions)
    bits = gates.unpack()
    bits[0, -1] = False
    statistics = glai.PathStatistics(5, 3, 2)
    statistics.update(z, glai.pack_gates(bits), targets)
    with pytest.raises(ValueError, match="the last path must be on in every sample, .*, got 39 of 40"):
        statistics.solve(1.0, directions)
