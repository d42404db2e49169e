"""The CUDA kernels on the host executor: all orders of lanes, copies that land at once and late."""

import pytest
import torch

import glai_native as glai
from executor import SCHEDULES, load, on_executor
from glai_native import reference as ref


@pytest.fixture(scope="session")
def executor(tmp_path_factory, request):
    """Built once, in the cache folder of pytest, so that a second run compiles only what has changed."""
    return load(request.config.cache.mkdir("simt"))


@pytest.fixture(params=SCHEDULES, ids=lambda s: f"{s[0]}-{'eager' if s[1] else 'lazy'}")
def every_schedule(request, executor):
    module, schedule = executor
    schedule(*request.param)
    with on_executor(module):
        yield


@pytest.mark.parametrize("p", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize("n", [0, 1, 31, 33, 300])
def test_gate_bits(every_schedule, n, p):
    generator = torch.Generator().manual_seed(n + p)
    values = torch.randn((n, 2 * p), generator=generator)
    bits, other = values[:, :p] > 0, values[:, p:] > 0.3
    for source in (bits, values[:, :p], values[:, :p].double()):
        gates = glai.pack_gates(source)
        assert torch.equal(gates.words, ref.pack_gates_ref(bits))
    assert torch.equal(gates.unpack(), bits)
    assert torch.equal(gates.counts(), bits.sum(0))
    assert torch.equal(gates.hamming(glai.pack_gates(other)), (bits != other).sum(1))


@pytest.mark.parametrize("units", [(0,), (5,), (31,), (33,), (7, 0, 3), (40, 2)])
def test_path_gates(every_schedule, units):
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand((37, h), generator=generator) < 0.5 for h in units]
    paths = glai.path_gates([glai.pack_gates(layer) for layer in layers])
    assert torch.equal(paths.unpack(), ref.path_gates_ref(layers))
