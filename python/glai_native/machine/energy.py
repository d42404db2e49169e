"""This module measures energy and CO2 of a phase of training through codecarbon; what is estimated is called so."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

JOULES_PER_KWH = 3.6e6
# Shorter blocks are over before codecarbon takes its second sample.
SHORTEST_SECONDS = 0.1
# Between samples of power; counters of energy (RAPL, NVML) are read at the end too, and miss nothing.
SAMPLING_SECONDS = 5.0

_running = threading.Lock()


@dataclass(frozen=True)
class EnergyPart:
    """What one component drew.

    Attributes:
        component: ``"processor"``, ``"GPU"`` or ``"memory"``.
        joules: what it drew.
        measured: whether a counter of the hardware says so; False: an estimate.
        how: in words.
    """

    component: str
    joules: float
    measured: bool
    how: str


@dataclass(frozen=True)
class PhaseEnergy:
    """What a phase cost.

    Source: codecarbon.

    Attributes:
        phase: its name.
        seconds: of the wall clock.
        kg_co2eq: from the joules and the mean intensity of a grid; always an estimate.
        parts: per component.
        co2_how: whose grid.
    """

    phase: str
    seconds: float
    kg_co2eq: float
    parts: tuple[EnergyPart, ...]
    co2_how: str

    @property
    def joules(self) -> float:
        """Of all components, measured or estimated."""
        return sum(part.joules for part in self.parts)

    @property
    def measured_joules(self) -> float:
        """Of the components that a counter measures."""
        return sum(part.joules for part in self.parts if part.measured)

    @property
    def how(self) -> str:
        """Where the figures come from, in one line."""
        ways = [f"{part.component} {part.how}" for part in self.parts] + [f"CO2 {self.co2_how}"]
        if self.seconds < SHORTEST_SECONDS:
            ways.insert(0, f"too short to be resolved (under {SHORTEST_SECONDS} s)")
        return "; ".join(ways)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and the sums, for JSON."""
        sums = {"joules": self.joules, "measured_joules": self.measured_joules, "how": self.how}
        return dataclasses.asdict(self) | sums


class EnergyMeter:
    """Measures the energy of a block::

        with glai.EnergyMeter("estimator", country="ESP") as meter:
            ...
        print(meter.energy.joules, meter.energy.how)

    The processor's energy is read from RAPL where Linux shows its counters, a GPU's from NVML: both are of the whole
    machine, other programs included. Without RAPL it is estimated from the CPU time of this process and its children
    and a nominal power of the processor (codecarbon's table, or ``CODECARBON_FORCE_CPU_POWER=watts``); memory's is
    always estimated. The hardware is looked up before the block starts (about two seconds the first time).

    Nothing is written and nothing sent: codecarbon runs offline. Its other settings (``CODECARBON_*``,
    ``~/.codecarbon.config``) hold as its manual says.

    Source: codecarbon, which reads RAPL and NVML counters or estimates.

    Args:
        phase: what the block is called in tables.
        country: three-letter ISO code of the grid, such as ``"ESP"``; None: codecarbon's setting, or the world's mean.

    Attributes:
        energy: :class:`PhaseEnergy`, once the block has been left, by an exception too.
        has_energy: whether codecarbon gave a result; a block is never lost where it gave none, a warning says so.

    Raises:
        ImportError: codecarbon is not installed.
        ValueError: a country that codecarbon has no data for.
        RuntimeError: on entering, codecarbon cannot start; asking for an energy that it has not given.
    """

    def __init__(self, phase: str, country: str | None = None) -> None:
        self.phase = phase
        self._codecarbon = _import_codecarbon()
        self._settings = {} if country is None else {"country_iso_code": _require_country(country)}
        self._energy: PhaseEnergy | None = None

    @property
    def has_energy(self) -> bool:
        """Whether :attr:`energy` is known."""
        return self._energy is not None

    @property
    def energy(self) -> PhaseEnergy:
        """What the block cost."""
        if self._energy is None:
            raise RuntimeError(
                f"EnergyMeter: {self.phase!r} must have been measured before its energy is asked for"
            )
        return self._energy

    def __enter__(self) -> EnergyMeter:
        if not _running.acquire(blocking=False):
            raise RuntimeError(
                f"EnergyMeter: {self.phase!r} must not start while another phase is measured, its joules would count "
                "twice; leave the other block first"
            )
        try:
            self._tracker = self._codecarbon.OfflineEmissionsTracker(
                tracking_mode="process",
                measure_power_secs=SAMPLING_SECONDS,
                output_methods=[],
                emissions_endpoint=None,
                electricitymaps_api_token="",
                cloud_provider=None,
                allow_multiple_runs=True,
                log_level="error",
                **self._settings,
            )
            self._tracker.start()
            # codecarbon logs its own errors instead of raising them.
            if getattr(self._tracker, "_start_time", None) is None:
                raise RuntimeError(
                    f"EnergyMeter: codecarbon must start before {self.phase!r} does, and it has not; its log says why"
                )
        except BaseException:
            _running.release()
            raise
        self._since = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._since
        self._energy, reason = None, "its log says why"
        try:
            self._tracker.stop()
            self._energy = self._measured(seconds)
        except Exception as failure:  # whatever it is, the block's own results are worth more
            reason = f"{type(failure).__name__}: {failure}"
        finally:
            _running.release()
        if self._energy is None:
            warnings.warn(
                f"EnergyMeter: codecarbon has no result for {self.phase!r}, so that its joules are unknown ({reason})",
                RuntimeWarning,
                stacklevel=2,
            )

    def _measured(self, seconds: float) -> PhaseEnergy | None:
        emissions = getattr(self._tracker, "final_emissions_data", None)
        if emissions is None:
            return None
        return PhaseEnergy(
            self.phase,
            seconds,
            float(emissions.emissions),
            tuple(_parts(self._tracker, emissions)),
            f"estimated with the mean grid intensity of {emissions.country_name or 'the world'}",
        )


def energy_table(phases: Sequence[PhaseEnergy]) -> Table:
    """Make a table for ``rich`` of phases, one line each; below it stands where the figures come from.

    Source: :class:`EnergyMeter`.
    """
    table = Table(title="energy", box=SIMPLE, caption_justify="left")
    table.add_column("phase")
    for column in ("seconds", "joules", "of them measured", "g CO2eq"):
        table.add_column(column, justify="right")
    for phase in phases:
        table.add_row(
            phase.phase,
            f"{phase.seconds:.2f}",
            f"{phase.joules:.1f}",
            f"{phase.measured_joules:.1f}",
            f"{phase.kg_co2eq * 1e3:.4f}",
        )
    table.caption = "\n".join(dict.fromkeys(phase.how for phase in phases))
    return table


def _import_codecarbon() -> ModuleType:
    try:
        import codecarbon
    except ImportError:
        raise ImportError(
            "EnergyMeter: codecarbon must be installed: pip install 'codecarbon>=3.3'"
        ) from None
    # It logs every step at its import's level until a tracker sets another.
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    module: ModuleType = codecarbon
    return module


def _require_country(country: str) -> str:
    from codecarbon.input import DataSource

    if not isinstance(country, str) or country not in DataSource().get_global_energy_mix_data():
        raise ValueError(
            "EnergyMeter: country must be a three-letter ISO code that codecarbon has data for, such as 'ESP', "
            f"got {country!r}"
        )
    return country


def _parts(tracker: Any, emissions: Any) -> list[EnergyPart]:
    """List the joules per component; what is not known to be a counter is called an estimate."""
    from codecarbon.core.gpu import is_nvidia_system

    # No public attribute says which source was taken.
    sources = {type(hardware).__name__: hardware for hardware in getattr(tracker, "_hardware", ())}
    cpu = sources.get("CPU")
    mode, watts = getattr(cpu, "_mode", "?"), getattr(cpu, "_tdp", None)
    processor = {
        "intel_rapl": "measured by RAPL (all programs)",
        "cpu_load": f"estimated by codecarbon from this process's CPU time and a nominal {watts} W",
        "constant": f"estimated by codecarbon as half of a nominal {watts} W",
    }.get(mode, "estimated by codecarbon")
    parts = [("processor", emissions.cpu_energy, mode == "intel_rapl", processor)]
    if "GPU" in sources:
        counter = "NVML" if is_nvidia_system() else "AMD SMI"
        parts.append(("GPU", emissions.gpu_energy, True, f"measured by {counter} (all programs)"))
    parts.append(("memory", emissions.ram_energy, False, "estimated by codecarbon from its size"))
    return [EnergyPart(name, kwh * JOULES_PER_KWH, measured, how) for name, kwh, measured, how in parts]
