"""What only a GPU can show: the PTX behind each primitive, streams, graphs, the same bits twice."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import glai_native as glai
from executor import SOURCE, probe_of
from glai_native.gates import packing
from probe_words import (
    MMA_TYPES,
    byte_fragments,
    byte_operands,
    fragments,
    operands,
    random_floats,
    random_words,
)

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="session")
def gpu_probe(tmp_path_factory):
    """Groups of primitives as the GPU does them, on words of the CPU."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on the path to compile the probes with")
    path = tmp_path_factory.mktemp("probes") / "probes.so"
    source, include = SOURCE / "probes.cu", Path(SOURCE).parents[1] / "csrc"
    options = ["-std=c++17", "-O2", "-shared", "-Xcompiler", "-fPIC", "-arch=native"]
    subprocess.run([nvcc, *options, f"-I{include}", source, "-o", path], check=True)
    probe = probe_of(path)
    return lambda name, words: probe(name, words.cuda()).cpu()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["words", "copies", "matrices"])
def test_primitives(probe, gpu_probe, name, seed):
    words = random_floats(seed) if name == "words" else random_words(seed)
    assert torch.equal(gpu_probe(name, words), probe(name, words))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", MMA_TYPES)
def test_mma(probe, gpu_probe, name, seed):
    words = fragments(name, *operands(seed))
    assert torch.equal(gpu_probe(name, words)[:, :4], probe(name, words)[:, :4])


@pytest.mark.parametrize("seed", range(5))
def test_mma_of_bytes(probe, gpu_probe, seed):
    words = byte_fragments(*byte_operands(seed))
    assert torch.equal(gpu_probe("mma_bytes", words)[:, :4], probe("mma_bytes", words)[:, :4])


def test_mma_ignores_what_tf32_lacks(probe, gpu_probe):
    words = fragments("mma_tf32", *operands())
    words[:, 4:10] |= 0x1FFF
    assert torch.equal(gpu_probe("mma_tf32", words)[:, :4], probe("mma_tf32", words)[:, :4])


def draw(n=300, p=70, d=50, c=10, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    values = [
        torch.randn(size, generator=generator).to("cuda", dtype)
        for size in ((n, d), (p, d, c), (p, c), (n, c))
    ]
    return *values, (torch.rand((n, p), generator=generator) < 0.4).cuda()


def run_all(x, weight, bias, dy, bits):
    gates = glai.pack_gates(bits)
    return (
        *(
            glai.gated_matmul(x, gates, weight, bias, form=form)
            for form in ("dense", "compaction", "reference")
        ),
        glai.gated_matmul_weight_grad(x, gates, dy),
        *(
            glai.gated_matmul_input_grad(dy, gates, weight, form=form)
            for form in ("dense", "compaction", "reference")
        ),
        glai.path_kernel(x, [gates]),
        gates.counts(),
        packing.selector_gates(x, weight[..., 0]).words,
        glai.gated_linear(x, gates, weight[..., 0], bias[:, 0]),
    )


def test_another_stream():
    inputs = draw()
    expected = run_all(*inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        actual = run_all(*inputs)
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_two_runs_give_the_same_bits():
    inputs = draw(n=3000, c=100)
    first, second = run_all(*inputs), run_all(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_ops_are_captured_in_a_graph():
    inputs = draw()
    run_all(*inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run_all(*inputs)
    inputs[0].copy_(torch.randn_like(inputs[0]))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, run_all(*inputs), strict=True))


def test_devices_must_agree():
    x, weight, _, _, bits = draw()
    with pytest.raises(ValueError, match="weight must be on cuda:0 like x, got cpu"):
        glai.gated_matmul(x, glai.pack_gates(bits), weight.cpu())
