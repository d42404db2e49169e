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
