"""Two ranks, and what they train on."""

import pytest
import torch
import torch.distributed as dist

import glai_native as glai
from rank_pool import RankPool

N, P, D, C = 101, 33, 5, 3


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """Two processes that are the ranks of a gloo group."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this torch is built without gloo")
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
