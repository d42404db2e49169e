import gc
import importlib.metadata
import itertools
import os
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

import glai_native as glai
import glai_native._native as _native
from executor import library, load, probe_of
from glai_native.cli.commands import GROUP

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
if WORKERS > 1:  # they share the cores, and so do the programs that their tests start
    THREADS = max(1, len(os.sched_getaffinity(0)) // WORKERS)
    torch.set_num_threads(THREADS)
    os.environ["OMP_NUM_THREADS"] = str(THREADS)

# They have the loops of avx512_bf16 but for products of precision "bf16", and of avx512 but for sums of bytes.
ONLY_BF16, ONLY_BYTES = "avx512_bf16_dot", "avx512_vnni"


@pytest.fixture(params=[name for name in _native.cpu_isas() if name not in (ONLY_BF16, ONLY_BYTES)])
def isa(request):
    """Every instruction set that this machine runs, one at a time."""
    yield from forced(request.param)


@pytest.fixture(params=[name for name in _native.cpu_isas() if name != ONLY_BYTES])
def bf16_isa(request):
    """The same for products of precision "bf16"."""
    yield from forced(request.param)


@pytest.fixture(params=[name for name in _native.cpu_isas() if name != ONLY_BF16])
def byte_isa(request):
    """The same for sums of bytes."""
    yield from forced(request.param)


def forced(isa):
    before = _native.cpu_isa()
    _native.force_cpu_isa(isa)
    yield isa
    _native.force_cpu_isa(before)


@pytest.fixture(scope="session")
def executor(request):
    """The module that runs CUDA kernels on the host, and the function that sets its schedule.

    Built in pytest's cache folder, so that a second run compiles only what has changed.
    """
    return load(request.config.cache.mkdir("simt"))


@pytest.fixture(scope="session")
def probe(executor, request):
    """Groups of primitives as the executor does them."""
    return probe_of(library(request.config.cache.mkdir("simt")))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20)


@pytest.fixture
def threads():
    """Sets torch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def make_mlp(*sizes, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(dtype)


@torch.no_grad()
def set_constant_units(mlp):
    """Makes the first unit of each hidden layer never on and the last one always on, and the others deaf to those."""
    hidden = list(mlp)[:-1:2]
    for layer in hidden:
        layer.bias[0], layer.bias[-1] = -1000.0, 1000.0
    for layer in hidden[1:]:
        layer.weight[:, -1] = 0
    return mlp


@pytest.fixture
def selector():
    """D=6 through one hidden layer of 33 units, C=4, on centred inputs."""
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(3)) * 3 + 1
    return glai.PathSelector(make_mlp(6, 33, 4), glai.InputProjection.fit(x))


@pytest.fixture
def samples():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(4)) * 3 + 1


@pytest.fixture
def data_folder():
    """Real data beside the project, named by GLAI_DATA."""
    folder = os.environ.get("GLAI_DATA")
    if not folder:
        pytest.skip("GLAI_DATA is not set: it names the folder with MNIST and BANKING77")
    return Path(folder)


@pytest.fixture
def further_commands(monkeypatch):
    """The commands of ``glai`` that this project's other packages add, whatever is installed."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    points = project["entry-points"][GROUP].items()
    offer_commands(monkeypatch, [importlib.metadata.EntryPoint(*point, GROUP) for point in points])


def offer_commands(monkeypatch, points):
    """Makes these the entry points of the group of ``glai``'s commands; returns what that group was asked for."""
    entry_points, asked = importlib.metadata.entry_points, []

    def offered(**selection):
        if selection != {"group": GROUP}:
            return entry_points(**selection)
        asked.append(selection)
        return points

    monkeypatch.setattr(importlib.metadata, "entry_points", offered)
    return asked


def pytest_collection_finish():
    """Spares the garbage collector what lives until the end, thousands of tests: a sixth of the executor's time."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("first") is None)
    info = glai.build_info()
    if info["cuda_available"]:
        return
    skip = pytest.mark.skip(reason=f"no GPU to run on: {info['cuda_reason']}")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
