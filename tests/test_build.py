"""The built module: what it says of itself, its stubs, forcing an instruction set."""

import importlib.metadata
import importlib.resources
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import glai_native as glai
import glai_native._native as _native


def test_build_info():
    info = glai.build_info()
    assert info["version"] == glai.__version__ == importlib.metadata.version("glai_native")
    assert info["cpu_isa"] in info["cpu_isas"]
    assert info["threads"] == torch.get_num_threads()
    assert info["cuda_available"] == (info["cuda_reason"] == "")
    if info["cuda_available"]:
        assert info["cuda_compiled"]


def test_cuda_reason_names_torch(monkeypatch):
    monkeypatch.setattr(_native, "cuda_status", lambda: (True, True, ""))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    info = glai.build_info()
    assert not info["cuda_available"]
    assert info["cuda_reason"] == f"torch {torch.__version__} cannot use CUDA"


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", _native.cpu_isas())
def test_isa_forced_by_environment(name):
    """By the extension alone: torch, which it does not need, takes seconds to import."""
    code = f"""
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("glai_native._native", {_native.__file__!r})
extension = module_from_spec(spec)
spec.loader.exec_module(extension)
print(extension.cpu_isa())
"""
    assert run_python(code, GLAI_CPU_ISA=name).stdout.strip() == name


CUDA_13 = " ".join(f"compute_{n}" for n in (75, 80, 86, 87, 89, 90, 100, 103, 120)) + "\n"
ALL = "80-real;86-real;89-real;90a-real;100a-real;120-real;80-virtual;120-virtual"


@pytest.mark.parametrize(
    ("wanted", "visible", "known", "chosen"),
    [
        ("native", "", CUDA_13, "80-virtual"),
        ("", "", CUDA_13, "80-virtual"),
        ("native", "9.0;9.0", CUDA_13, "90a-real"),
        ("native", "8.0;10.3", CUDA_13, "80-real;103-real"),
        ("native", "7.5", CUDA_13, "80-virtual"),  # older than the kernels
        ("native", "12.0", "compute_80 compute_90\n", "80-virtual"),  # newer than nvcc
        ("native", "", "compute_50 compute_70\n", ""),
        ("all", "9.0", CUDA_13, ALL),
        (
            "all",
            "",
            "compute_80 compute_86 compute_89 compute_90\n",
            "80-real;86-real;89-real;90a-real;80-virtual",
        ),
        ("90a-real;130-real", "8.0", CUDA_13, "90a-real"),
        ("130-real", "", CUDA_13, ""),
    ],
)
def test_gpu_architectures(tmp_path, wanted, visible, known, chosen):
    """Which ones a build compiles for, where nvcc knows some and some are visible."""
    choice = Path(__file__).parents[1] / "csrc" / "cuda" / "architectures.cmake"
    script = tmp_path / "choose.cmake"
    script.write_text(
        f'include("{choice}")\n'
        f'choose_gpu_architectures("{wanted}" "{visible}" "{known}" chosen)\n'
        'file(WRITE "${CMAKE_CURRENT_LIST_DIR}/chosen" "${chosen}")\n'
    )
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ["PATH"]]
    )  # cmake may be this environment's
    subprocess.run(["cmake", "-P", script], check=True, env=os.environ | {"PATH": path})
    assert (tmp_path / "chosen").read_text() == chosen


def test_unknown_isa():
    code = "from glai_native.cli.main import main; raise SystemExit(main(['inspect']))"
    result = run_python(code, GLAI_CPU_ISA="avx9000")
    assert result.returncode == 2
    assert result.stderr.startswith("glai inspect: GLAI_CPU_ISA: must be one of generic")
    assert result.stderr.count("\n") == 1
    with pytest.raises(ValueError, match="got 'nonsense'"):
        _native.force_cpu_isa("nonsense")


def test_import_does_not_look_for_a_gpu():
    """A process that is forked later could not use CUDA any more."""
    code = """
import torch
libraries = lambda: open('/proc/self/maps').read().count('libcuda')
before = libraries()
import glai_native
print(libraries() - before)
"""
    assert run_python(code).stdout.strip() == "0"


def test_typed():
    assert importlib.resources.files("glai_native").joinpath("py.typed").is_file()


def test_stubs_match_the_built_module(tmp_path):
    """The committed stub is what the module's own signatures give."""
    subprocess.run(
        [sys.executable, "-m", "pybind11_stubgen", "glai_native._native", "-o", tmp_path, "--exit-code"],
        check=True,
        capture_output=True,
    )
    stub = importlib.resources.files("glai_native").joinpath("_native.pyi").read_text()
    assert (tmp_path / "glai_native" / "_native.pyi").read_text() == stub, (
        "run: pybind11-stubgen glai_native._native -o python"
    )


def test_every_public_name_is_documented():
    for name in glai.__all__:
        assert getattr(glai, name).__doc__, name


def test_a_build_writes_nothing_into_the_sources():
    """They may be read-only: where it builds is a temporary folder, which a ``build-dir`` would not be."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "build-dir" not in project["tool"]["scikit-build"]
