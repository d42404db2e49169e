"""What the primitives' probes are given: words int32 [32, 16], a row per lane."""

import torch

MMA_TYPES = {"mma_fp16": torch.float16, "mma_bf16": torch.bfloat16, "mma_tf32": torch.float32}


def random_words(seed=0):
    """Any bits."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**31), 2**31, (32, 16), generator=generator, dtype=torch.int64).to(torch.int32)


def random_floats(seed=0):
    """Finite floats of many sizes in every word, the lower 16 bits a finite half."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randint(-30, 30, (32, 16), generator=generator)
    words = torch.ldexp(torch.randn((32, 16), generator=generator), size).view(torch.int32)
    return torch.where((words & 0x7C00) == 0x7C00, words ^ 0x4000, words)


def operands(seed=0):
    """Matrices a [16, K], b [K, 8], acc [16, 8] of small whole numbers, exact in every type."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-8, 9, size, generator=generator).float() for size in ((16, 16), (16, 8), (16, 8)))


def fragments(name, a, b, acc):
    """The words of ``name``'s operands, each lane's acc, a and b, laid out as the PTX manual says.

    K is 16, of which tf32 takes the first 8.
    """
    dtype = MMA_TYPES[name]
    words = torch.zeros((32, 16), dtype=torch.int32)
    for lane in range(32):
        g, t = divmod(lane, 4)
        sums = [acc[g + 8 * (e // 2), 2 * t + e % 2] for e in range(4)]
        words[lane, :4] = torch.stack(sums).view(torch.int32)
        if dtype == torch.float32:
            of_a = [a[g + 8 * (r % 2), t + 4 * (r // 2)] for r in range(4)]
            of_b = [b[t + 4 * r, g] for r in range(2)]
        else:
            of_a = [a[g + 8 * (r % 2), 2 * t + 8 * (r // 2) + h] for r in range(4) for h in range(2)]
            of_b = [b[2 * t + 8 * r + h, g] for r in range(2) for h in range(2)]
        words[lane, 4:8] = torch.stack(of_a).to(dtype).view(torch.int32)
        words[lane, 8:10] = torch.stack(of_b).to(dtype).view(torch.int32)
    return words


def sums(words):
    """The matrix [16, 8] of which each lane holds four."""
    matrix = torch.zeros((16, 8))
    for lane in range(32):
        g, t = divmod(lane, 4)
        for e in range(4):
            matrix[g + 8 * (e // 2), 2 * t + e % 2] = words[lane, e].view(torch.float32)
    return matrix


def byte_operands(seed=0):
    """Matrices a [16, 32], b [32, 8] of bytes, acc [16, 8]."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(256, size, generator=generator) for size in ((16, 32), (32, 8)))
    return a, b, torch.randint(-(2**20), 2**20, (16, 8), generator=generator)


def byte_fragments(a, b, acc):
    """The words of mma_bytes's operands, each lane's acc, a and b, laid out as the PTX manual says."""
    words = torch.zeros((32, 16), dtype=torch.int32)
    for lane in range(32):
        g, t = divmod(lane, 4)
        words[lane, :4] = torch.stack([acc[g + 8 * (e // 2), 2 * t + e % 2] for e in range(4)])
        k = torch.arange(4) + 4 * t
        of_a = torch.stack([a[g + 8 * (r % 2), k + 16 * (r // 2)] for r in range(4)])
        of_b = torch.stack([b[k + 16 * r, g] for r in range(2)])
        words[lane, 4:10] = torch.cat([of_a, of_b]).to(torch.uint8).view(torch.int32).flatten()
    return words


def byte_sums(words):
    """The matrix [16, 8] of integers of which each lane holds four."""
    lanes = words[:, :4].view(8, 4, 2, 2)  # g, t, e // 2, e % 2
    return lanes.permute(2, 0, 1, 3).reshape(16, 8)
