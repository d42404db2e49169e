"""Runs the CUDA kernels of the ops on the host: builds tests/simt and puts it where the ops find the extension."""

import ctypes
import importlib.machinery
import importlib.util
import itertools
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pybind11
import torch
from filelock import FileLock

SOURCE = Path(__file__).parent / "simt"
ORDERS = ("forward", "reverse", "shuffled")
SHARED_KIB = (99, 227)  # of a block: on the smallest GPU that is built for, and on an H100
# Modules that call kernels which also run on CUDA.
OWNERS = (
    "gates.packed",
    "gates.words",
    "ops.gated_linear",
    "ops.gated_matmul",
    "ops.gated_matmul_autograd",
    "ops.integer_sums",
    "ops.operands",
    "ops.path_matrices",
)
SCHEDULES = list(itertools.product(ORDERS, (False, True)))  # order of a warp's lanes; copies land at once


def build(folder, *options, target="all"):
    """Configures and builds tests/simt in ``folder``, or what has changed of it: one process at a time."""
    configure = ["cmake", "-S", SOURCE, "-B", folder, "-G", "Ninja", *options]
    jobs = str(min(2, os.cpu_count() or 1))
    # cmake and ninja may be this environment's, which need not be active.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with FileLock(f"{folder}.lock"):
        for command in (configure, ["cmake", "--build", folder, "-j", jobs, "--target", target]):
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
            )
            if result.returncode:
                raise RuntimeError(f"{command}\n{result.stdout}\n{result.stderr}")


def library(folder):
    """Where the stand-in for the extension lies, a shared library too."""
    (path,) = Path(folder).glob("_native.*.so")
    return path


def load(folder):
    """Builds the stand-in for the extension; the module, and the function that sets its schedule."""
    build(
        folder,
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DPython_EXECUTABLE={sys.executable}",
        target="_native",
    )
    path = library(folder)
    loader = importlib.machinery.ExtensionFileLoader("_native", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_native", loader))
    loader.exec_module(module)
    schedule = ctypes.CDLL(str(path)).glai_simt_schedule
    schedule.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64]

    def set_schedule(order, eager, seed=1, shared_kib=SHARED_KIB[0]):
        schedule(ORDERS.index(order), eager, seed, shared_kib * 1024)

    return module, set_schedule


def probe_of(path):
    """The function of the shared library ``path`` that applies a group of primitives (tests/simt/probes.cu).

    It takes the group's name and words, int32 ``[32, 16]``, where its kernels run, and returns as many.
    """
    function = ctypes.CDLL(str(path)).glai_probe
    function.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]
    function.restype = ctypes.c_char_p

    def probe(name, words):
        out = torch.zeros_like(words)
        error = function(name.encode(), words.data_ptr(), out.data_ptr())
        assert error is None, error
        return out

    return probe


@contextmanager
def on_executor(module):
    """Within, glai's ops take tensors of the CPU to the CUDA kernels on the executor."""
    with ExitStack() as stack:
        for owner in OWNERS:
            owner = importlib.import_module(f"glai_native.{owner}")
            stack.enter_context(mock.patch.object(owner, "_native", module))
        stack.enter_context(mock.patch("glai_native.machine.backend.runs_cuda_kernels", return_value=True))
        yield
