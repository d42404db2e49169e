"""The executor that CUDA kernels are tested on: its primitives, and what sanitizers say of the kernels."""

import subprocess

import pytest
import torch

from executor import build
from probe_words import (
    MMA_TYPES,
    byte_fragments,
    byte_operands,
    byte_sums,
    fragments,
    operands,
    random_floats,
    random_words,
    sums,
)


@pytest.mark.parametrize("name", MMA_TYPES)
def test_mma_multiplies_matrices(probe, name):
    a, b, acc = operands()
    k = 8 if name == "mma_tf32" else 16
    actual = sums(probe(name, fragments(name, a, b, acc)))
    assert torch.equal(actual, acc + a[:, :k] @ b[:k])


def test_mma_multiplies_bytes(probe):
    a, b, acc = byte_operands()
    actual = byte_sums(probe("mma_bytes", byte_fragments(a, b, acc)))
    assert torch.equal(actual.long(), acc + a @ b)


def test_matrices_are_loaded_in_fragments(probe):
    words = random_words()
    out = probe("matrices", words)
    rows = words[:, :4].contiguous().view(torch.int16).view(4, 8, 8)  # matrix, row, element
    for i in range(4):
        assert torch.equal(out[:, i].contiguous().view(torch.int16), rows[i].flatten())
        assert torch.equal(out[:, 4 + i].contiguous().view(torch.int16), rows[i].T.flatten())


def test_copies_are_zero_past_their_bytes(probe):
    words = random_words()
    expected = words[:, [0, 1, 2, 3, 5]].view(torch.uint8).clone()
    for lane in range(32):
        expected[lane, int(words[lane, 4]) % 2**32 % 17 : 16] = 0
        expected[lane, 16 + int(words[lane, 6]) % 2**32 % 5 :] = 0
    assert torch.equal(probe("copies", words)[:, :5], expected.view(torch.int32).roll(-1, 0))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("unaligned matrices", "rows at multiples of 16 bytes"), ("divergent mma", "meet at different places")],
)
def test_what_no_gpu_does_is_refused(probe, name, sentence):
    with pytest.raises(AssertionError, match=sentence):
        probe(name, random_words())


def test_words_are_exchanged_and_rounded(probe):
    words = random_floats()
    out = probe("words", words)
    assert torch.equal(out[:, 1], words[words[:, 1] % 32, 0])
    assert torch.equal(out[5:, 2], words[:-5, 0])
    assert torch.equal(out[:5, 2], words[:5, 0])
    ballot = sum(int(words[lane, 0] & 1) << lane for lane in range(32))
    assert (out[:, 0].long() % 2**32 == ballot).all()
    assert [int(n) for n in out[:, 3]] == [(int(w) % 2**32).bit_count() for w in words[:, 0]]
    pair = torch.cat([words[:, :1], words[:, 1:2]], 1).view(torch.uint8)
    assert torch.equal(out[:, 10:11].contiguous().view(torch.uint8), pair[:, ::2])
    values, halves = words[:, 2].contiguous().view(torch.float32), words[:, 3].to(torch.int16)
    tf32 = out[:, 4].contiguous().view(torch.float32)
    assert ((tf32 - values).abs() <= values.abs() * 2.0**-11).all()
    assert (out[:, 4] & 0x1FFF == 0).all()
    for place, dtype in ((5, torch.float16), (6, torch.bfloat16)):
        assert torch.equal(out[:, place].to(torch.int16), values.to(dtype).view(torch.int16))
        widened = out[:, place + 2].contiguous().view(torch.float32)
        torch.testing.assert_close(widened, halves.view(dtype).float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.first
@pytest.mark.parametrize(
    ("sanitizer", "schedules"),
    [
        ("address", [("forward", "eager"), ("shuffled", "lazy")]),
        ("thread", [("forward", "eager"), ("reverse", "lazy")]),
    ],
)
def test_sanitizers_have_nothing_to_say(request, sanitizer, schedules):
    folder = request.config.cache.mkdir(f"simt-{sanitizer}")
    build(folder, f"-DGLAI_SANITIZER={sanitizer}", target="check_kernels")
    for schedule in schedules:
        result = subprocess.run(
            [folder / "check_kernels", *schedule], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
