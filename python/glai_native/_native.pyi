"""
Native kernels of glai_native; call them through glai_native.ops.
"""

from __future__ import annotations

import typing

import torch

__all__: list[str] = [
    "check_words",
    "cpu_isa",
    "cpu_isas",
    "cuda_status",
    "force_cpu_isa",
    "gate_counts",
    "gate_hamming",
    "gated_matmul",
    "gated_matmul_input_grad",
    "gated_matmul_weight_grad",
    "openmp",
    "pack_gates",
    "path_gates",
    "unpack_gates",
    "version",
]

def check_words(words: torch.Tensor, n_gates: typing.SupportsInt | typing.SupportsIndex) -> None: ...
def cpu_isa() -> str: ...
def cpu_isas() -> list[str]: ...
def cuda_status() -> tuple[bool, bool, str]: ...
def force_cpu_isa(name: str) -> None: ...
def gate_counts(
    words: torch.Tensor,
    n_gates: typing.SupportsInt | typing.SupportsIndex,
    counts: torch.Tensor,
    threads: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def gate_hamming(
    words_a: torch.Tensor,
    words_b: torch.Tensor,
    n_gates: typing.SupportsInt | typing.SupportsIndex,
    distance: torch.Tensor,
    threads: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def gated_matmul(
    x: torch.Tensor,
    words: torch.Tensor,
    n_gates: typing.SupportsInt | typing.SupportsIndex,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    y: torch.Tensor,
    form: str | None,
    threads: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def gated_matmul_input_grad(
    dy: torch.Tensor,
    words: torch.Tensor,
    n_gates: typing.SupportsInt | typing.SupportsIndex,
    weight: torch.Tensor,
    dx: torch.Tensor,
    form: str | None,
    threads: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def gated_matmul_weight_grad(
    x: torch.Tensor,
    words: torch.Tensor,
    n_gates: typing.SupportsInt | typing.SupportsIndex,
    dy: torch.Tensor,
    dw: torch.Tensor,
    db: torch.Tensor | None,
    accumulate: bool,
    form: str | None,
    threads: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def openmp() -> bool: ...
def pack_gates(
    bits: torch.Tensor,
    words: torch.Tensor,
    threads: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def path_gates(
    unit_words: torch.Tensor,
    n_units: typing.SupportsInt | typing.SupportsIndex,
    inner_words: torch.Tensor,
    n_inner: typing.SupportsInt | typing.SupportsIndex,
    words: torch.Tensor,
    threads: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def unpack_gates(
    words: torch.Tensor,
    n_gates: typing.SupportsInt | typing.SupportsIndex,
    bits: torch.Tensor,
    threads: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def version() -> str: ...
