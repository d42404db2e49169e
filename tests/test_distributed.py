"""Ranks of a gloo group together give what one process gives, or all refuse in one sentence."""

import pytest
import torch
import torch.distributed as dist

import glai_native as glai
from glai_native import distributed
from rank_pool import RankPool

N, P, D, C = 101, 33, 5, 3

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch is built without gloo"
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    pool = RankPool(2, tmp_path_factory.mktemp("group") / "store")
    yield pool
    pool.close()


def make_samples(n=N, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator, dtype=dtype)
    bits = torch.rand(n, P, generator=generator) < 0.5
    bits[:, 3], bits[:, P - 1] = False, True
    y = torch.randint(0, C, (n,), generator=generator)
    return x, glai.pack_gates(bits), y, torch.rand(n, generator=generator, dtype=dtype)


def sum_shares(dtype, piece_bytes, cut):
    """Rank 0 takes the first ``cut`` samples in; cut 0: none, and so no structure_id."""
    distributed.PIECE_BYTES = piece_bytes
    x, gates, y, weight = make_samples()
    gates.structure_id = "a" * 64
    rows = slice(0, cut) if dist.get_rank() == 0 else slice(cut, None)
    statistics = glai.PathStatistics(P, D, C, dtype)
    if cut or dist.get_rank():
        statistics.update(x[rows].to(dtype), gates[rows], y[rows], weight[rows].to(dtype))
    distributed.all_reduce(statistics)
    return statistics.n_samples, statistics.structure_id, *statistics._sums()


@pytest.mark.parametrize(
    ("dtype", "piece_bytes", "cut"),
    [(torch.float64, 1, 50), (torch.float64, 4096, 0), (torch.float32, 1 << 26, 101)],
)
def test_statistics_add_up_to_those_of_one_process(ranks, dtype, piece_bytes, cut):
    whole = glai.PathStatistics(P, D, C, dtype)
    x, gates, y, weight = make_samples()
    whole.update(x.to(dtype), gates, y, weight.to(dtype))
    first, second = ranks.run(sum_shares, dtype, piece_bytes, cut)
    assert first[:2] == second[:2] == (N, "a" * 64)
    for mine, theirs, expected in zip(first[2:], second[2:], whole._sums(), strict=True):
        assert torch.equal(mine, theirs)
        bound = torch.finfo(dtype).eps * (8 + N**0.5) * N * 20  # |terms| < 20
        assert (mine - expected).abs().max() <= bound
    assert torch.equal(first[5], whole.on_counts)


def sum_different(sizes):
    sizes, structure_id, dtype = sizes[dist.get_rank()]
    distributed.all_reduce(glai.PathStatistics(*sizes, dtype, structure_id))


@pytest.mark.parametrize(
    ("mine", "theirs", "sentence"),
    [
        (((4, 3, 2), "a" * 64, torch.float64), ((4, 3, 2), "b" * 64, torch.float64), "structure_id must be alike"),
        (((4, 3, 2), None, torch.float64), ((4, 3, 5), None, torch.float64), r"C=2\] on rank 0 and \[P=4, D=3, C=5"),
        (((4, 3, 2), None, torch.float64), ((4, 3, 2), None, torch.float32), "dtype must be alike on all ranks"),
    ],
)  # fmt: skip
def test_statistics_that_differ_are_refused_on_all_ranks(ranks, mine, theirs, sentence):
    first, second = ranks.run(sum_different, (mine, theirs))
    assert isinstance(first, ValueError)
    assert str(first) == str(second)
    with pytest.raises(ValueError, match=sentence):
        raise first


def sum_nothing():
    distributed.all_reduce("statistics" if dist.get_rank() else glai.PathStatistics(2, 2, 2))


def test_a_mistake_on_one_rank_ends_all(ranks):
    first, second = ranks.run(sum_nothing)
    assert isinstance(first, RuntimeError)
    assert str(first) == f"{second} (on rank 1)"
    assert isinstance(second, TypeError)


def make_estimator(kind, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    directions = None
    if kind == "directions":
        directions = torch.randn(P, C, generator=generator, dtype=dtype)
        directions[-1] = 0
    estimator = glai.PathEstimator(P, D, C, directions, dtype=dtype)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.1)
        if kind == "directions":
            estimator.u[-1], estimator.beta[-1] = 0, 0
    return estimator


def group_of_ranks():
    return dist.group.WORLD if dist.is_initialized() else None


def train(kind, values, weighted, dtype, options):
    """On the ranks, or in the test's own process; rank 1 starts from zeros, which must not matter."""
    x, gates, y, weight = make_samples(dtype=dtype)
    held_out = make_samples(n=37, dtype=dtype, seed=9)[:3]
    if values:
        y = torch.randn(N, C, dtype=dtype, generator=torch.Generator().manual_seed(3))
        held_out = *held_out[:2], torch.zeros(37, C, dtype=dtype)
    estimator = make_estimator(kind, dtype)
    if dist.is_initialized() and dist.get_rank() == 1:
        with torch.no_grad():
            for parameter in estimator.parameters():
                parameter.zero_()
    options = {"batch_size": 20, "epochs": 17, "learning_rate": 1e-2, "seed": 5, "progress": False} | options
    if "patience" in options:
        options["validation"] = held_out
    history = glai.train_estimator(
        estimator, x, gates, y, sample_weight=weight if weighted else None, process_group=group_of_ranks(), **options
    )  # fmt: skip
    figures = [[e.epoch, e.loss, e.validation_loss, e.validation_score] for e in history]
    return [p.detach() for p in estimator.parameters()], torch.tensor(figures, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["full", "directions"])
@pytest.mark.parametrize(
    ("values", "weighted", "dtype", "options"),
    [
        (False, False, torch.float64, {}),  # six steps an epoch, the last of one sample: rank 0 has none
        (False, True, torch.float64, {"weight_decay": 0.1, "average": False}),
        (True, True, torch.float64, {"batch_size": 33, "epochs": 30}),
        (False, False, torch.float64, {"learning_rate": 0.1, "epochs": 60, "patience": 3}),
        (True, False, torch.float64, {"learning_rate": 0.1, "epochs": 60, "patience": 3}),
        (False, True, torch.float32, {}),
    ],
)
def test_training_equals_one_process(ranks, kind, values, weighted, dtype, options):
    (first, history), (second, other) = ranks.run(train, kind, values, weighted, dtype, options)
    alone, expected = train(kind, values, weighted, dtype, options)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert torch.equal(history.nan_to_num(), other.nan_to_num())
    torch.testing.assert_close(history, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if "patience" in options:
        assert len(history) < options["epochs"]
    for mine, theirs, one in zip(first, second, alone, strict=True):
        assert torch.equal(mine, theirs)
        assert (mine - one).abs().max() <= tolerance * one.abs().max()


def test_a_checkpoint_goes_on_with_other_ranks(ranks, tmp_path):
    whole, history = train("full", False, False, torch.float64, {"epochs": 6, "patience": 6})
    options = {"epochs": 3, "patience": 6, "checkpoint": tmp_path / "training"}
    train("full", False, False, torch.float64, options)
    (first, figures), (second, _) = ranks.run(
        train, "full", False, False, torch.float64, options | {"epochs": 6}
    )
    torch.testing.assert_close(figures, history, rtol=1e-10, atol=1e-10)
    for mine, theirs, one in zip(first, second, whole, strict=True):
        assert torch.equal(mine, theirs)
        assert (mine - one).abs().max() <= 1e-10 * one.abs().max()


def train_differently(change):
    """Rank 1 has one argument different."""
    x, gates, y, _ = make_samples()
    arguments = {"x": x, "gates": gates, "targets": y, "progress": False, "process_group": group_of_ranks()}
    if dist.get_rank() == 1:
        arguments |= change
    glai.train_estimator(make_estimator("full"), **arguments)


def stop(epoch):
    raise RuntimeError(f"stopped at epoch {epoch.epoch}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch_size": 8}, "batch_size must be alike on all ranks, got 512 on rank 0 and 8 on rank 1"),
        ({"targets": torch.zeros(N, dtype=torch.int64)}, "targets' CRC-32 must be alike on all ranks"),
        ({"x": torch.full((N, D), torch.nan).double()}, "x must be finite"),
        ({"epochs": 0}, "epochs must be an int >= 1, got 0"),
        ({"on_epoch": stop}, "stopped at epoch 1"),
    ],
)
def test_ranks_that_differ_stop_together(ranks, change, sentence):
    results = ranks.run(train_differently, change)
    for result in results:
        with pytest.raises((ValueError, RuntimeError), match=sentence):
            raise result


def explode():
    x, gates, _, _ = make_samples()
    targets = torch.full((N, C), 1e200, dtype=torch.float64)
    glai.train_estimator(
        make_estimator("full"), x, gates, targets, progress=False, process_group=group_of_ranks()
    )


def test_a_training_that_explodes_ends_on_all_ranks(ranks):
    for result in ranks.run(explode):
        with pytest.raises(FloatingPointError, match="the loss is inf at or before step 1 of epoch 1"):
            raise result


def test_what_is_no_group_is_refused():
    x, gates, y, _ = make_samples()
    with pytest.raises(TypeError, match="process_group must be a torch.distributed.ProcessGroup"):
        glai.train_estimator(make_estimator("full"), x, gates, y, process_group=2)
