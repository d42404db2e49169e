"""What is wrong with a call: one argument that no function may take, or one that only some may."""

import math
import random

import numpy as np
import torch

from fuzz.call import Call
from fuzz.memory import FLOATS, Memory, span

WRONG_SIZES = (-1, -(2**63), 2**31, 2**62, 2**63 - 1, 2**63, 2**64 + 1, -(2**70), "3", 3.5, None, [3])
WRONG_INTS = (2**63, 2**200, "1", None, 1.5, [1])
NO_TENSORS = ("x", 3, [1.0], np.zeros(3), object())
SIZES = ("n_gates", "n_units", "n_inner", "p", "depth", "columns", "d", "c")
INTS = ("threads", "stream", "step", "averaged", "sign")
FLAGS = ("tf32", "accumulate", "tensor_cores")
NUMBERS = ("learning_rate", "beta1", "beta2", "eps", "weight_decay")
TEXTS = {
    "form": ("nonsense", "dense", 3),
    "precision": ("nonsense", "tf32", 3),
    "cuda": (3, "x"),
    "estimate": (3, (1.0,), (1.0, "x"), "ab"),
    "op": (3, None),
    "words_a": (3, None, [3]),
    "words_b": (3, None, [None]),
    "hidden_weights": (3, None, [3], []),
    "hidden_biases": (3, None, [3], []),
    "weights": (3, None, [3], []),
    "biases": (3, None, [3], []),
    "multipliers": (3, None, [3], []),
    "shifts": (3, None, [None], []),
    "hidden": (3, None, [3], []),
    "hidden_words": (3, None, [3], []),
}
HUGE = (2**31, 2**33, 2**40, 2**61)
HUGE_TO_COPY = (2**45, 2**61)  # of what users call, which may copy: more than there is memory


def spoil(call: Call, rng: random.Random, memory: Memory) -> bool | None:
    """Make one argument wrong; say whether the call must be refused, or None where nothing was changed.

    What users call may copy what kernels refuse.
    """
    wrong = _spoil(call, rng, memory)
    return False if wrong and call.name.startswith("glai.") else wrong


def _spoil(call: Call, rng: random.Random, memory: Memory) -> bool | None:
    if rng.random() < 0.3:
        return _spoil_value(call, rng)
    names = list(call.tensors())
    if not names:
        return _spoil_value(call, rng)
    name = rng.choice(names)
    kinds = (
        (_other_kind, _other_shape, _overlap)
        if name not in call.written
        else (_other_kind, _other_shape, _fold)
    )
    if rng.random() < 0.3 and call.written:
        kinds = (_overlap,)
    return rng.choice(kinds)(call, rng, memory, name)


def _spoil_value(call: Call, rng: random.Random) -> bool | None:
    names = [name for name in call.arguments if name in (*SIZES, *INTS, *FLAGS, *NUMBERS, *TEXTS)]
    if not names:
        return None
    name = rng.choice(names)
    if isinstance(call.arguments[name], list) and name == "n_units":
        call.arguments[name] = rng.choice((3, None, [None], [2**63], [-1] * len(call.arguments[name])))
        return call.arguments[name] != []
    if name in SIZES:
        call.arguments[name] = rng.choice(WRONG_SIZES)
    elif name in INTS:
        call.arguments[name] = rng.choice(WRONG_INTS)
    elif name in FLAGS:
        call.arguments[name] = rng.choice((2, "x", None))
    elif name in NUMBERS:
        call.arguments[name] = rng.choice(("x", None, [1.0]))
    else:
        call.arguments[name] = rng.choice(TEXTS[name])
        if name == "form" and call.name == "plan_cuda_product":
            return call.arguments[name] != "dense"
        if name == "words_b" and call.arguments.get("xb", 0) is None:
            return False
    return True


def _other_kind(call: Call, rng: random.Random, memory: Memory, name: str) -> bool | None:
    tensor = call.arguments[name]
    kind = rng.randrange(7)
    if kind == 0:
        wrong = torch.zeros((), dtype=rng.choice((torch.int16, torch.complex64))).expand(tensor.shape)
    elif kind == 1:
        wrong = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    elif kind == 2:
        wrong = tensor.unsqueeze(0)
    elif kind == 3:
        wrong = rng.choice(NO_TENSORS)
    elif kind == 4:
        if tensor.dtype not in FLOATS:
            return None
        wrong = torch._neg_view(tensor)
    elif kind == 5:
        if tensor.itemsize == 1 or not 0 < tensor.numel() < 10_000:
            return None
        wrong = misaligned(tensor)
    else:
        wrong = tensor.to_sparse() if tensor.ndim and tensor.numel() < 10_000 else None
        if wrong is None:
            return None
    call.arguments[name] = wrong
    return True


def misaligned(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor that begins a byte past a multiple of its numbers' size."""
    values = np.zeros(tensor.numel() * tensor.itemsize + 16, dtype=np.uint8)
    kind = str(tensor.dtype).removeprefix("torch.")
    return torch.from_numpy(values[1 : 1 + tensor.numel() * tensor.itemsize].view(kind)).view(tensor.shape)


def _other_shape(call: Call, rng: random.Random, memory: Memory, name: str) -> bool | None:
    """A dimension more or less long, or of a size that only a stride of 0 or an empty tensor can have."""
    tensor = call.arguments[name]
    if tensor.ndim == 0:
        return None
    shape, at = list(tensor.shape), rng.randrange(tensor.ndim)
    huge = HUGE_TO_COPY if call.name.startswith("glai.") else HUGE
    kind = rng.random()
    if kind < 0.4:
        shape[at] = max(0, shape[at] + rng.choice((-1, 1)))
        wrong = torch.zeros(shape, dtype=tensor.dtype)
    elif kind < 0.7:
        shape[at] = rng.choice(huge)
        wrong = torch.zeros((), dtype=tensor.dtype).expand(shape) if math.prod(shape) < 2**62 else None
    else:
        shape[at] = 0
        if tensor.ndim > 1:
            shape[at - 1] = rng.choice(huge)
        wrong = torch.empty(0, dtype=tensor.dtype).as_strided(
            shape, [rng.choice((0, 1, 2**60))] * tensor.ndim
        )
    if wrong is None:
        return None
    call.arguments[name] = wrong
    return False


def _fold(call: Call, rng: random.Random, memory: Memory, name: str) -> bool | None:
    """An output whose elements share memory, or whose last dimension is no unit stride."""
    tensor = call.arguments[name]
    at = rng.randrange(max(tensor.ndim, 1))
    if tensor.ndim == 0 or tensor.numel() == 0 or tensor.shape[at] < 2:
        return None
    strides = list(tensor.stride())
    inner = span(tuple(tensor.shape[at + 1 :]), tuple(strides[at + 1 :]))
    strides[at] = rng.choice((0, inner - 1))
    call.arguments[name] = tensor.as_strided(tensor.shape, strides)
    return True


def _overlap(call: Call, rng: random.Random, memory: Memory, name: str) -> bool | None:
    """Something read, or written too, begins where something written does."""
    tensors = call.tensors()
    written = [one for one in call.written if one in tensors]
    others = [other for other in tensors if other not in written[:1] and other != "scale"]
    if not written or not others:
        return None
    out, other = rng.choice(written), rng.choice(others)
    if out == other or {out, other} == {"hidden", "batch_x"}:
        return None
    if not tensors[out].numel() or not tensors[other].numel():
        return None
    wrong = memory.overlapping(rng, tensors[out], tensors[other])
    if wrong is None:
        return None
    call.arguments[other] = wrong
    return True
