"""Where CUDA kernels run: on the host executor, in all orders of lanes and with copies that land at once and late;
and, where there is one, on a GPU."""

import pytest
import torch

from executor import SCHEDULES, SHARED_KIB, on_executor


def name_of(machine):
    return machine if machine == "gpu" else f"{machine[0]}-{'eager' if machine[1] else 'lazy'}"


@pytest.fixture(params=[*SCHEDULES, pytest.param("gpu", marks=pytest.mark.gpu)], ids=name_of)
def place(request):
    """Where kernels run: a function that puts a tensor, or gates, there."""
    if request.param == "gpu":
        yield lambda t: t.to("cuda")
        return
    module, schedule = request.getfixturevalue("executor")
    # Kernels choose by the memory that there is: of an H100 with one order of lanes.
    schedule(*request.param, shared_kib=SHARED_KIB[request.param[0] == "reverse"])
    with on_executor(module):
        yield lambda t: t


ARITHMETICS = ["fp32", "tf32", "fp16", "bf16", "fp64"]
DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
}


@pytest.fixture(params=ARITHMETICS)
def arithmetic(request):
    """A dtype, and how its results are rounded."""
    tf32, before = request.param == "tf32", torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    yield DTYPES[request.param], {"tf32": tf32}
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.hookimpl(tryfirst=True)  # before slow tests are left out
def pytest_collection_modifyitems(items):
    """Of a test marked covering, leaves each case two of the six schedules, one of each landing: the others are slow.

    The next value of any parameter takes the next two, so that together its cases meet them all.
    """
    for item in items:
        if item.get_closest_marker("covering") and item.callspec.params["place"] != "gpu":
            case = item.callspec.params
            others = ARITHMETICS.index(case["arithmetic"])
            for mark in item.iter_markers("parametrize"):
                name, values = mark.args
                others += values.index(case[name])
            if (SCHEDULES.index(case["place"]) - others) % 3:
                item.add_marker(pytest.mark.slow)
