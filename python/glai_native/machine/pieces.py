"""A file of tensors in pieces, none of which is copied: what is larger than half the memory can be written too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from glai_native.machine.files import CHECKSUM, checksum_of

# What the format calls a type, in the order in which the library writes them, so that all are aligned.
TYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
}


def tensors_to_pieces(
    state: Mapping[str, Tensor | Sequence[Tensor]], metadata: Mapping[str, str]
) -> list[bytes | memoryview]:
    """Return what :func:`tensors_to_bytes` would, in pieces that are the tensors' own memory.

    Args:
        state: tensors, or runs of tensors of one type, on the CPU, which are one tensor without a second dimension.
        metadata: as for :func:`tensors_to_bytes`; it gets the checksum.
    """
    runs = {name: [each] if isinstance(each, Tensor) else list(each) for name, each in state.items()}
    shapes = {
        name: list(each.shape) if isinstance(each, Tensor) else [sum(part.numel() for part in each)]
        for name, each in state.items()
    }
    kinds = [(name, runs[name][0].dtype, shapes[name]) for name in sorted(runs)]
    checksum = checksum_of(metadata, kinds, (part for name in sorted(runs) for part in runs[name]))
    header: dict[str, object] = {"__metadata__": dict(sorted({**metadata, CHECKSUM: checksum}.items()))}
    pieces: list[bytes | memoryview] = []
    end = 0
    order = list(TYPES)
    for name, dtype, shape in sorted(kinds, key=lambda kind: (order.index(kind[1]), kind[0])):
        begin = end
        for part in runs[name]:
            if part.numel():
                pieces.append(part.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
                end += part.numel() * part.element_size()
        header[name] = {"dtype": TYPES[dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *pieces]
