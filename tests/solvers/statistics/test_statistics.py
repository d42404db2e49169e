"""PathStatistics against direct float64 ridge on features made in full."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from solvers.statistics.normal_equations import assert_solution, draw, gather, ridge

# Units per hidden layer, D, C, N.
SHAPES = [((4,), 3, 2, 40), ((33,), 1, 5, 50), ((31,), 5, 1, 33), ((3, 4), 6, 4, 70), ((1,), 2, 3, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ridge(shape):
    z, gates, targets, weight = draw(*shape)
    c = shape[2]
    for s in (None, weight):
        statistics = gather(z, gates, targets, c, s)
        for l2 in (0.3, 20.0):
            estimator = statistics.solve(l2)
            assert_solution(estimator, ridge(z, gates, targets, c, l2, s))
        assert estimator.weight.dtype == torch.float64
        assert int(estimator.samples_seen) == len(z)
    counted = glai.PathEstimator(gates.n_gates, z.shape[1], c)
    counted.record(gates, targets)
    assert torch.equal(estimator.on_counts, counted.on_counts)


def test_merging_is_exact():
    z, gates, targets, _ = draw((3, 4), 6, 4, 90)
    whole = gather(z, gates, targets, 4)
    parts = [gather(z[i::3], gates[i::3], targets[i::3], 4) for i in range(3)]
    for merged in (parts[0] + parts[1] + parts[2], parts[2] + (parts[1] + parts[0])):
        assert_solution(merged.solve(0.1), ridge(z, gates, targets, 4, 0.1))
        assert merged.n_samples == 90
        assert torch.equal(merged.on_counts, whole.on_counts)
    assert parts[0].n_samples == 30  # as it was
    assert "N=30, P=20, D=6, C=4" in repr(parts[0].copy("cpu"))


def test_sums_add_up_over_parties():
    z, gates, targets, _ = draw((3, 4), 6, 4, 90)
    parts = [gather(z[i::3], gates[i::3], targets[i::3], 4).sums() for i in range(3)]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    whole = glai.PathStatistics.from_sums(total, 90)
    assert_solution(whole.solve(0.1), ridge(z, gates, targets, 4, 0.1))
    assert whole.n_samples == 90
    for change, sentence in (
        ({"rhs": total["rhs"][0]}, r"rhs must be floating \[P, D\+1, C\], got torch.float64 \[7, 4\]"),
        ({"gram": total["gram"][1:]}, r"gram must be torch.float64 \[9870\], got torch.float64 \[9869\]"),
        ({"squares": total["squares"] / 0}, "squares must be finite"),
        ({"on_counts": -1 - total["on_counts"]}, "counts of samples must be >= 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            glai.PathStatistics.from_sums(total | change, 90)


def test_files(tmp_path, selector, samples):
    targets = torch.arange(len(samples)) % 4
    z, gates = selector.project(samples), selector.gates(samples)
    statistics = gather(z, gates, targets, 4)
    assert statistics.structure_id == selector.structure_id
    path = tmp_path / "statistics.safetensors"
    statistics.save(path)
    loaded = glai.PathStatistics.load(path, selector.structure_id)
    assert torch.equal(loaded.solve(1.0).weight, statistics.solve(1.0).weight)
    assert torch.equal(loaded.solve(1.0).on_counts, statistics.solve(1.0).on_counts)
    assert loaded.n_samples == 40
    foreign = glai.PathSelector(make_mlp(6, 33, 4, seed=5))
    with pytest.raises(ValueError, match=f"structure_id must be {foreign.structure_id[:12]}"):
        glai.PathStatistics.load(path, foreign.structure_id)
    for entry, sentence in (
        ("[34, 6]", "must list P, D and C"),
        ("[35, 6, 4]", r"'rhs' must be .*\[35, 7, 4\]"),
    ):
        path.write_bytes(statistics.to_bytes(sizes=entry))
        with pytest.raises(ValueError, match=sentence):
            glai.PathStatistics.load(path)
    path.write_bytes(statistics.to_bytes(n_samples="-1"))
    with pytest.raises(ValueError, match="'n_samples' must be an integer >= 0, got -1"):
        glai.PathStatistics.load(path)
    path.write_bytes(statistics.to_bytes(n_samples="39"))
    with pytest.raises(ValueError, match="must fit each other, got 39 samples and a path that was on in 40"):
        glai.PathStatistics.load(path)
    path.write_bytes(glai.PathEstimator(2, 3, 4).to_bytes())
    with pytest.raises(ValueError, match="format must be 'glai-statistics', got 'glai-estimator'"):
        glai.PathStatistics.load(path)
    statistics.save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="truncated"):
        glai.PathStatistics.load(path)


def test_singular_without_a_penalty():
    z, gates, targets, _ = draw((4,), 3, 2, 40)
    bits = gates.unpack()
    bits[:, 1] = False  # never on
    gates = glai.pack_gates(bits)
    statistics = gather(z, gates, targets, 2)
    with pytest.raises(ValueError, match=r"singular in float64 at l2=0 .*, pass a larger l2"):
        statistics.solve(0)
    estimator = statistics.solve(0.5)
    assert (
        float(estimator.weight[1].detach().abs().max()) == 0 == float(estimator.bias[1].detach().abs().max())
    )
    bits[:, 1] = bits[:, -1]  # the same path twice
    with pytest.raises(ValueError, match="pass a larger l2"):
        gather(z, glai.pack_gates(bits), targets, 2).solve(0)


def test_least_squares_where_they_are_unique():
    z, gates, targets, _ = draw((4,), 3, 2, 200)
    assert_solution(gather(z, gates, targets, 2).solve(0), ridge(z, gates, targets, 2, 0.0))


def test_values_as_targets():
    z, gates, _, weight = draw((5,), 3, 2, 60)
    values = torch.randn(60, 2, dtype=torch.float64)
    statistics = gather(z, gates, values, 2, weight)
    assert_solution(statistics.solve(0.2), ridge(z, gates, values, 2, 0.2, weight))
    assert not bool(statistics.on_counts.any())


@pytest.mark.parametrize("weighted", [False, True])
def test_downdate(weighted):
    z, gates, targets, weight = draw((3, 4), 5, 3, 120)
    s = weight if weighted else None
    statistics = gather(z, gates, targets, 3, s)
    gone, kept = slice(10, 40), torch.cat([torch.arange(10), torch.arange(40, 120)])
    statistics.downdate(z[gone], gates[gone], targets[gone], None if s is None else s[gone])
    expected = ridge(z[kept], gates[kept], targets[kept], 3, 0.1, None if s is None else s[kept])
    assert_solution(statistics.solve(0.1), expected, 1e-9)
    left = gather(z[kept], gates[kept], targets[kept], 3)
    assert statistics.n_samples == 90
    assert torch.equal(statistics.on_counts, left.on_counts)


def test_downdate_refuses_what_it_does_not_hold():
    z, gates, targets, _ = draw((4,), 3, 2, 40)
    statistics = gather(z[:20], gates[:20], targets[:20], 2)
    before = statistics.solve(1.0).weight
    for rows in (slice(0, 40), slice(20, 40)):
        with pytest.raises(ValueError, match="must be among the 20 that the statistics hold"):
            statistics.downdate(z[rows], gates[rows], targets[rows])
    assert torch.equal(statistics.solve(1.0).weight, before)


def test_classes_one_after_another():
    z, gates, targets, _ = draw((6,), 4, 5, 150)
    joint = gather(z, gates, targets, 5)
    statistics = glai.PathStatistics(7, 4, 2)
    for c in range(5):
        if c >= statistics.out_features:
            statistics.add_outputs(1)
        rows = targets == c
        statistics.update(z[rows], gates[rows], targets[rows])
    assert_solution(statistics.solve(0.3), ridge(z, gates, targets, 5, 0.3))
    assert torch.equal(statistics.on_counts, joint.on_counts)
    assert statistics.choose_l2("gcv") == pytest.approx(joint.choose_l2("gcv"))


def test_float32():
    z, gates, targets, weight = draw((6,), 4, 3, 100)
    statistics = gather(z.float(), gates, targets, 3, weight.float(), dtype=torch.float32)
    estimator = statistics.solve(1.0)
    assert estimator.weight.dtype == torch.float32
    assert_solution(estimator, ridge(z.float(), gates, targets, 3, 1.0, weight.float()), 1e-4)
    wide = gather(z.float(), gates, targets, 3)  # float32 samples, float64 sums
    assert_solution(wide.solve(1.0), ridge(z.float(), gates, targets, 3, 1.0))
    assert wide.solve(1.0, dtype=torch.float32).weight.dtype == torch.float32
    bits = gates.unpack()
    bits[:, 0] = bits[:, 1]  # in float32 too small a penalty tells the two no longer apart
    statistics = gather(z.float(), glai.pack_gates(bits), targets, 3, dtype=torch.float32)
    with pytest.raises(ValueError, match="singular in float32 at l2=1e-06 .*, pass a larger l2"):
        statistics.solve(1e-6)


def test_samples_come_in_chunks(monkeypatch):
    z, gates, targets, weight = draw((6,), 4, 3, 100)
    monkeypatch.setattr("glai_native.solvers.statistics.adding.CHUNK_ROWS", 32)
    statistics = gather(z[:, :], gates, targets, 3, weight)
    assert_solution(statistics.solve(0.2), ridge(z, gates, targets, 3, 0.2, weight))


def test_a_solved_model(selector, samples):
    targets = torch.arange(40) % 4
    z, gates = selector.project(samples), selector.gates(samples)
    estimator = gather(z, gates, targets, 4).solve("gcv", dtype=torch.float32)
    model = glai.GLAI(selector, estimator)
    assert model.estimator.structure_id == selector.structure_id
    assert float((model(samples).argmax(1) == targets).float().mean()) > 0.5


def test_structures_are_kept_apart(selector, samples):
    other = glai.PathSelector(make_mlp(6, 33, 4, seed=5))
    targets = torch.arange(40) % 4
    a = gather(selector.project(samples), selector.gates(samples), targets, 4)
    b = gather(samples, other.gates(samples), targets, 4)
    ids = f"structure_id {selector.structure_id[:12]}.*, got {other.structure_id[:12]}"
    with pytest.raises(ValueError, match=f"merge: statistics must be of {ids}"):
        a.merge(b)
    with pytest.raises(ValueError, match=f"update: gates must be of {ids}"):
        a.update(samples, other.gates(samples), targets)


Z, GATES, TARGETS, WEIGHT = draw((4,), 3, 2, 10)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": Z[:, :2]}, r"update: x must be \[N, D=3\], got \[10, 2\]"),
        ({"x": Z.long()}, "x must be float32 or float64"),
        ({"x": Z.half()}, r"x must be float32 or float64 \[N, D=3\], got float16"),
        ({"x": Z / 0}, "update: x must be finite"),
        ({"gates": GATES[:5]}, "gates must be of N=10 samples and P=5 paths, got N=5 and P=5"),
        ({"gates": glai.pack_gates(torch.ones(10, 4))}, "got N=10 and P=4"),
        ({"targets": TARGETS + 1}, r"targets must be class indices in \[0, C=2\), got 1 to 2"),
        ({"targets": torch.zeros(10, 3)}, r"targets must be values \[N=10, C=2\]"),
        ({"targets": torch.full((10, 2), float("nan"))}, "targets must be finite"),
        ({"sample_weight": -WEIGHT}, "sample_weight must be >= 0"),
        ({"sample_weight": WEIGHT[:4]}, r"sample_weight must be \[N=10\], got \[4\]"),
    ],
)
def test_bad_samples(change, sentence):
    statistics = glai.PathStatistics(5, 3, 2)
    with pytest.raises(ValueError, match=sentence) as error:
        statistics.update(**({"x": Z, "gates": GATES, "targets": TARGETS} | change))
    assert "\n" not in str(error.value)
    assert statistics.n_samples == 0


def test_bad_arguments(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="n_paths must be an int >= 1, got 0"):
        glai.PathStatistics(0, 3, 2)
    with pytest.raises(ValueError, match="dtype must be torch.float32 or torch.float64"):
        glai.PathStatistics(5, 3, 2, dtype=torch.float16)
    with pytest.raises(MemoryError, match=r"gram matrix of P=9999999 paths .* takes [\d,]+.\d GB"):
        glai.PathStatistics(9999999, 3, 2)
    statistics = glai.PathStatistics(5, 3, 2)
    with pytest.raises(ValueError, match="must hold samples, got none"):
        statistics.solve(1.0)
    statistics.update(Z, GATES, TARGETS)
    for l2 in (-1.0, float("nan"), float("inf"), None, True, "magic"):
        with pytest.raises(ValueError, match="l2 must be a finite number >= 0, 'gcv' or 'loo', got"):
            statistics.solve(l2)
    for data in (None, iter([])):
        with pytest.raises(ValueError, match="must have data"):
            statistics.solve("loo", data=data)
    with pytest.raises(ValueError, match="data must be the N=10 samples of the statistics, got 5"):
        statistics.solve("loo", data=[(Z[:5], GATES[:5], TARGETS[:5])])
    with pytest.raises(TypeError, match="gates must be PackedGates, got Tensor"):
        statistics.update(Z, GATES.unpack(), TARGETS)
    with pytest.raises(TypeError, match="other must be PathStatistics, got int"):
        statistics.merge(1)
    with pytest.raises(ValueError, match=r"must be \[P=5, D=3, C=2\], got \[P=5, D=3, C=4\]; add_outputs"):
        statistics.merge(glai.PathStatistics(5, 3, 4))
    with pytest.raises(ValueError, match="must be torch.float64, got torch.float32"):
        statistics.merge(glai.PathStatistics(5, 3, 2, dtype=torch.float32))
    with pytest.raises(ValueError, match="k must be an int >= 1, got 0"):
        statistics.add_outputs(0)
    monkeypatch.setattr("glai_native.machine.memory.free_memory", lambda device: 100)
    with pytest.raises(
        MemoryError, match="Cholesky factor of 20 unknowns takes .* are available; use fewer paths"
    ):
        statistics.solve(1.0)


def test_one_sample_of_a_class():
    z, gates, targets, _ = draw((4,), 3, 5, 3)  # fewer samples than classes
    assert_solution(gather(z, gates, targets, 5).solve(0.1), ridge(z, gates, targets, 5, 0.1))
    assert gather(z, gates, targets, 5).solve("gcv").weight.isfinite().all()


@pytest.mark.parametrize("factor", [{"x": 1e25}, {"targets": 1e25}, {"sample_weight": 1e38}], ids=str)
def test_sums_never_overflow(factor):
    """Finite samples whose squares are not: refused before they are in all sums."""
    z, gates, targets, weight = draw((5,), 5, 3, 40)
    statistics = gather(z, gates, targets, 3, weight, dtype=torch.float32)
    before = statistics.solve(1.0)
    samples = {"x": z, "targets": torch.nn.functional.one_hot(targets, 3).double(), "sample_weight": weight}
    samples |= {name: samples[name] * value for name, value in factor.items()}
    with pytest.raises(
        ValueError, match="update: x and targets must have .* fit in float32, got values up to"
    ):
        statistics.update(gates=gates, **samples)
    assert torch.equal(statistics.solve(1.0).weight, before.weight)


@pytest.mark.parametrize("l2", ["gcv", 1.0])
def test_what_was_never_added_is_found_when_solved(l2):
    """Values have no counts per class, by which a downdate would refuse."""
    z, gates, targets, _ = draw((5,), 5, 3, 40)
    values = torch.nn.functional.one_hot(targets, 3).double()
    statistics = gather(z[:20], gates[:20], values[:20], 3)
    with pytest.raises(ValueError, match="the samples must be among those that the statistics hold"):
        statistics.downdate(3 * z[20:35], gates[20:35], values[20:35])
    taken = gather(3 * z[20:35], gates[20:35], values[20:35], 3).sums()
    left = {name: sums - taken[name] for name, sums in statistics.sums().items()}
    with pytest.raises(ValueError, match="samples were taken out that the statistics did not hold"):
        glai.PathStatistics.from_sums(left, 5).solve(l2)
