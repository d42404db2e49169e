"""This module loads the compiled extension and tells what is known of it."""

from __future__ import annotations

from typing import Any

# torch first: its OpenMP runtime is then the one that the kernels share.
import torch
from torch import get_num_threads

import glai_native._native as _native
from glai_native.machine.threads import OUTSIDE, kernel_threads


def execution(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the threads and the CUDA stream that an op on ``tensor`` runs with, as torch itself would."""
    if tensor.is_cuda:
        return 1, torch.cuda.current_stream(tensor.device).cuda_stream
    return OUTSIDE.threads or get_num_threads(), 0  # kernel_threads(), without the call


def runs_cuda_kernels(tensor: torch.Tensor) -> bool:
    """Return whether an op on ``tensor`` takes the CUDA kernels, which want a workspace from here."""
    return tensor.is_cuda


def allows_tf32() -> bool:
    """Return whether CUDA products of float32 may round their operands to tf32, as torch's own would."""
    matmul = torch.backends.cuda.matmul
    try:
        return bool(matmul.allow_tf32)
    except RuntimeError:  # it was set by its newer name, which the older one then refuses to read
        return bool(matmul.fp32_precision == "tf32")


def build_info() -> dict[str, Any]:
    """Tell what this build of the package can do on this machine.

    Source: CPUID, the CUDA driver, and torch.

    Returns:
        ``version``; ``cuda_compiled``: CUDA kernels are part of the build; ``cuda_available``: and a
        device, driver and torch to use them are here; ``cuda_reason``: why not (empty when available);
        ``cpu_isa``: the instruction set of the CPU kernels (environment variable ``GLAI_CPU_ISA``
        forces one); ``cpu_isas``: those this machine runs; ``openmp``: whether the CPU kernels were built
        with threads; ``threads``: how many they use (``torch.set_num_threads`` sets it).
    """
    compiled, available, reason = _native.cuda_status()
    if available and not torch.cuda.is_available():
        available, reason = False, f"torch {torch.__version__} cannot use CUDA"
    return {
        "version": _native.version(),
        "cuda_compiled": compiled,
        "cuda_available": available,
        "cuda_reason": reason,
        "cpu_isa": _native.cpu_isa(),
        "cpu_isas": list(_native.cpu_isas()),
        "openmp": _native.openmp(),
        "threads": kernel_threads(),
    }
