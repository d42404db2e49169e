"""Files in pieces are those that are written whole, without a copy."""

import pytest
import torch
from safetensors.torch import load

from glai_native.machine.files import TensorFile, tensors_to_bytes
from glai_native.machine.pieces import tensors_to_pieces
from glai_native.machine.writing import write_files


def test_pieces_are_the_whole(tmp_path):
    sums = torch.arange(12).reshape(3, 4)
    state = {
        "b": sums,
        "a": torch.randn(3, dtype=torch.float64),
        "empty": torch.zeros((0, 16), dtype=torch.uint8),
        "odd": torch.arange(5, dtype=torch.int8),
        "scalar": torch.tensor(7),
    }
    metadata = {"format": "glai-test", "version": "1", "text": "é"}
    assert b"".join(tensors_to_pieces(state, metadata)) == tensors_to_bytes(state, metadata)
    rows = [row[i:] for i, row in enumerate(sums)]
    pieces = tensors_to_pieces(state | {"rows": rows}, metadata)
    assert torch.equal(load(b"".join(pieces))["rows"], torch.cat(rows))
    sums[0, 0] = 99
    assert load(b"".join(pieces))["b"][0, 0] == 99  # nothing was copied
    path = tmp_path / "a.safetensors"
    write_files({path: pieces})
    with pytest.raises(ValueError, match="does not match"):
        TensorFile(path, "glai-test", newest=1)
    write_files({path: tensors_to_pieces(state | {"rows": rows}, metadata)})
    assert torch.equal(
        TensorFile(path, "glai-test", newest=1).tensor("rows", (torch.int64,), (9,)), torch.cat(rows)
    )
