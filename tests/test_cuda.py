"""CUDA: the ops that exist there against the CPU, and a sentence for those that do not."""

import pytest
import torch

import glai_native as glai

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [1, 31, 32, 33, 1000])
@pytest.mark.parametrize("n", [0, 1, 300])
def test_pack_gates(n, p, dtype):
    values = torch.randn((n, p), generator=torch.Generator().manual_seed(0))
    bits = (values > 0) if dtype == torch.bool else values.to(dtype)
    expected = glai.pack_gates(bits).words
    assert torch.equal(glai.pack_gates(bits.cuda()).words.cpu(), expected)
    assert torch.equal(
        glai.pack_gates(bits.cuda()[:, : p // 2]).words.cpu(), glai.pack_gates(bits[:, : p // 2]).words
    )


def test_pack_gates_on_another_stream():
    bits = torch.rand(5000, 777).cuda() < 0.5
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        gates = glai.pack_gates(bits)
    stream.synchronize()
    assert torch.equal(gates.words.cpu(), glai.pack_gates(bits.cpu()).words)


def test_ops_without_a_kernel_say_so():
    gates = glai.pack_gates(torch.ones(3, 4, dtype=torch.bool, device="cuda"))
    with pytest.raises(ValueError, match="there is no CUDA kernel for this op yet"):
        glai.gated_matmul(torch.zeros(3, 2, device="cuda"), gates, torch.zeros(4, 2, 5, device="cuda"))
    with pytest.raises(ValueError, match="weight must be on cuda:0 like x, got cpu"):
        glai.gated_matmul(torch.zeros(3, 2, device="cuda"), gates, torch.zeros(4, 2, 5))
