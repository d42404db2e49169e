"""Energy of phases: stopped whatever happens, nothing estimated called measured."""

import builtins
import json
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

import glai_native as glai
from glai_native.machine import energy


def burn(seconds=0.2):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(1000))


def burn_and_fail():
    burn()
    raise OSError("broken")


def test_phases(tmp_path, monkeypatch):
    """One test for all that needs codecarbon's start."""
    pytest.importorskip("codecarbon")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"country must be a three-letter ISO code.*got 'Spain'"):
        glai.EnergyMeter("selector", country="Spain")
    with pytest.raises(ValueError, match=r"country must be a three-letter ISO code.*got \['ESP'\]"):
        glai.EnergyMeter("selector", country=["ESP"])
    meter = glai.EnergyMeter("selector", country="ESP")
    with pytest.raises(RuntimeError, match="'selector' must have been measured"):
        _ = meter.energy
    with meter:
        burn()
        with (
            pytest.raises(RuntimeError, match="'estimator' must not start while another phase is measured"),
            glai.EnergyMeter("estimator"),
        ):
            pass
    selector = meter.energy
    assert 0.2 <= selector.seconds < 5
    assert selector.joules > 0
    assert all(part.joules >= 0 for part in selector.parts)
    assert selector.kg_co2eq > 0
    assert selector.joules == sum(part.joules for part in selector.parts)
    assert "processor" in selector.how
    assert "estimated with the mean grid intensity of Spain" in selector.how
    with pytest.raises(OSError, match="broken"), glai.EnergyMeter("estimator") as meter:
        burn_and_fail()
    estimator = meter.energy
    assert "of the world" in estimator.how
    with glai.EnergyMeter("short") as meter:
        pass
    assert "too short to be resolved" in meter.energy.how
    assert list(tmp_path.iterdir()) == []

    described = json.loads(json.dumps(selector.to_dict()))
    assert described["joules"] == selector.joules
    assert described["parts"][0]["component"] == "processor"
    console = Console(width=200, record=True, quiet=True)
    console.print(energy.energy_table([selector, estimator]))


@pytest.mark.parametrize(
    ("mode", "measured", "how"),
    [
        ("intel_rapl", True, "measured by RAPL (all programs)"),
        ("cpu_load", False, "estimated by codecarbon from this process's CPU time and a nominal 65 W"),
        ("constant", False, "estimated by codecarbon as half of a nominal 65 W"),
        ("another", False, "estimated by codecarbon"),
    ],
)
def test_sources(mode, measured, how):
    pytest.importorskip("codecarbon")
    cpu = type("CPU", (), {"_mode": mode, "_tdp": 65})()
    emissions = SimpleNamespace(cpu_energy=1e-6, gpu_energy=2e-6, ram_energy=3e-6)
    processor, memory = energy._parts(SimpleNamespace(_hardware=[cpu]), emissions)
    assert (processor.joules, processor.measured, processor.how) == (pytest.approx(3.6), measured, how)
    assert (memory.measured, memory.how) == (False, "estimated by codecarbon from its size")
    gpu = type("GPU", (), {})()
    parts = energy._parts(SimpleNamespace(_hardware=[cpu, gpu]), emissions)
    assert [part.component for part in parts] == ["processor", "GPU", "memory"]
    assert parts[1].measured
    assert parts[1].how.startswith("measured by ")
    total = energy.PhaseEnergy("x", 1.0, 0.0, tuple(parts), "")
    assert total.measured_joules == pytest.approx(7.2 + 3.6 * measured)
    unknown = energy._parts(SimpleNamespace(), emissions)
    assert not any(part.measured for part in unknown)


def tracker(**attributes):
    return SimpleNamespace(**({"start": lambda: None, "stop": lambda: None, "_start_time": 1.0} | attributes))


def with_tracker(monkeypatch, make):
    module = SimpleNamespace(OfflineEmissionsTracker=make)
    monkeypatch.setattr(energy, "_import_codecarbon", lambda: module)


def test_a_tracker_that_cannot_start_is_told_before_the_work(monkeypatch):
    """Codecarbon logs its errors, raises none, and has no time of a start then."""
    done = []
    with_tracker(monkeypatch, lambda **_: tracker(_start_time=None))
    for _ in range(2):  # the next phase can start
        with (
            pytest.raises(RuntimeError, match="codecarbon must start before 'x' does, and it has not"),
            glai.EnergyMeter("x"),
        ):
            done.append(1)
    assert not done

    def broken(**_):
        raise OSError("no such folder")

    with_tracker(monkeypatch, broken)
    for _ in range(2):
        with pytest.raises(OSError, match="no such folder"), glai.EnergyMeter("x"):
            pass


def test_missing_joules_lose_nothing(monkeypatch):
    def broken():
        raise OSError("counter gone")

    for attributes, reason in (({}, "its log says why"), ({"stop": broken}, "OSError: counter gone")):
        with_tracker(monkeypatch, lambda attributes=attributes, **_: tracker(**attributes))
        done = []
        with (
            pytest.warns(RuntimeWarning, match=rf"no result for 'x'.*\({reason}\)"),
            glai.EnergyMeter("x") as meter,
        ):
            done.append(1)
        assert done
        assert not meter.has_energy
        with pytest.raises(RuntimeError, match="'x' must have been measured"):
            _ = meter.energy
        with pytest.raises(ZeroDivisionError), pytest.warns(RuntimeWarning), glai.EnergyMeter("x"):
            1 / 0  # noqa: B018


def test_without_codecarbon(monkeypatch):
    plain = builtins.__import__

    def without(name, *rest, **named):
        if name == "codecarbon":
            raise ImportError(name)
        return plain(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"codecarbon must be installed: pip install 'codecarbon>=3.3'"):
        glai.EnergyMeter("selector")
