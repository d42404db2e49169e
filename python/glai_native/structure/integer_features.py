"""The frozen map from samples to integer features, which every machine computes with the same numbers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glai_native.data.counts import require_seed
from glai_native.machine.files import TensorFile, tensors_to_bytes
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.writing import write_files
from glai_native.ops.integer_sums import IntegerLayer, integer_features
from glai_native.structure.centring import SCALE, Moments, quantised
from glai_native.structure.first_samples import FirstSamples
from glai_native.structure.integer_checks import as_frozen, as_samples, require_kind, require_sound
from glai_native.structure.integer_layers import (
    MOST_INPUT,
    WINDOW_LENGTHS,
    WINDOWS,
    Measure,
    random_layers,
    random_weights,
    require_fan_in,
    selector_layers,
    shaped_layers,
    squares_of_units,
)
from glai_native.structure.selector import PathSelector

FEATURES_FILE = "features.safetensors"
FEATURES_FORMAT = "glai-integer-features"
FEATURES_VERSION = 2  # 1 knows no rule of windows but the first, and is written where there is no other


class IntegerFeatures:
    """A frozen map of raw x to uint8 features ``(h, q + 64, 127)``: integer units, the inputs themselves, a constant.

    ``q = clamp(rint((x - mean)·scale), -63, 63)``, each operation rounded to float32; a unit's sum
    ``a = q·weight + bias`` is an int32, its value ``h = min(127, (max(a, 0)·m + 2^(r-1)) >> r)``; layers above read h.
    Nothing else is floating point, so features, and sums over them, are the same on every machine.

    Made by :meth:`fit`. What has seen the samples given there cannot be taken back: mean, scale, m, and the selector
    where there is one.

    Source: random ReLU features of analytic continual learning (RanPAC, arXiv 2307.02251); integer inference: Jacob et
    al., arXiv 1712.05877.

    Args:
        mean: float32 ``[D]``.
        scale: float32 ``[D]``, > 0.
        layers: first layer first; of random units one.
        seed: that the weights were drawn from; None: of no seed.
        windows: by which rule the seed draws windows, of ``WINDOW_LENGTHS``.

    Attributes:
        features_id: SHA-256 of all that is frozen, 64 hexadecimal digits.

    Raises:
        ValueError: numbers that do not fit each other, or sums that 32 bits may not hold.
    """

    windows = 1  # of a map that was pickled before there were others

    @outside_inference_mode
    def __init__(
        self,
        mean: Tensor,
        scale: Tensor,
        layers: Sequence[IntegerLayer],
        seed: int | None = None,
        windows: int = 1,
    ) -> None:
        self.mean, self.scale = (as_frozen(t, torch.float32) for t in (mean, scale))
        self.layers = tuple(
            IntegerLayer(
                as_frozen(layer.weight, torch.int8),
                as_frozen(layer.bias, torch.int32),
                as_frozen(layer.multiplier, torch.int32),
                int(layer.shift),
            )
            for layer in layers
        )
        self.seed, self.windows = seed, windows
        require_sound(self.mean, self.scale, self.layers)
        self.features_id = self._compute_id()
        self._elsewhere: dict[torch.device, tuple[Tensor, Tensor, tuple[IntegerLayer, ...]]] = {}

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def fit(
        cls,
        x: Tensor | np.ndarray[Any, Any],
        n_units: int | None,
        selector: PathSelector | None = None,
        seed: int = 0,
        *,
        scale: str = SCALE,
        weights: str = "random",
    ) -> IntegerFeatures:
        """Freeze a map for samples like x: random units, or those of a trained selector.

        The order of the samples does not matter, nor how they are cut (:meth:`from_moments`). Mean and scale are those
        of all of x, to the last bit; units are measured on some 1,024 of its rows.

        Args:
            x: raw ``[N >= 1, D]``, any real numbers, finite; read as float32.
            n_units: of the one random layer, or, with a selector, its units in the last hidden layer; None: those.
            selector: its projection and hidden layers, of any depth, become integers; None: units are random.
            seed: of the random units, in [0, 2**32).
            scale: ``"global"``: one for all features; ``"features"``: one for each; ``"auto"``: the first, unless some
                features would then be lost to rounding (:meth:`Moments.centre_and_scale`).
            weights: of random units: ``"random"``, by the seed alone; ``"covariance"``: those that read all features
                are random combinations of the measured rows, so that they follow the samples' covariance. They have
                seen those rows; none of them is kept as such.

        Raises:
            ValueError: no samples, NaN or infinite values, or a selector of other samples.
        """
        owner = "IntegerFeatures.fit"
        n_units, seed = require_kind(owner, n_units, selector, seed, scale, weights)
        if isinstance(x, Tensor | np.ndarray) and (x.ndim != 2 or not x.shape[0] or not x.shape[1]):
            raise ValueError(f"{owner}: x must be [N >= 1, D >= 1], got {list(x.shape)}")
        width = x.shape[1] if isinstance(x, Tensor | np.ndarray) else 0
        x = as_samples(owner, x, width if selector is None else selector.in_features).cpu()
        require_fan_in(width, MOST_INPUT)
        first = FirstSamples(x.shape[1])
        first.add(x)
        return cls.from_first(first, n_units, selector, seed, scale=scale, weights=weights)

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def from_first(
        cls,
        first: FirstSamples,
        n_units: int | None,
        selector: PathSelector | None = None,
        seed: int = 0,
        *,
        scale: str = SCALE,
        weights: str = "random",
    ) -> IntegerFeatures:
        """Freeze the map that :meth:`fit` makes, from samples that came in chunks; arguments as there."""
        owner = "IntegerFeatures.from_first"
        n_units, seed = require_kind(owner, n_units, selector, seed, scale, weights)
        mean, factors = first.moments.centre_and_scale(scale)
        rows = quantised(first.measured, mean, factors)

        def measure(*layer: Any) -> tuple[list[int], int]:
            return squares_of_units(rows, *layer), len(rows)

        if selector is None and n_units is not None and weights == "covariance":
            return cls(mean, factors, shaped_layers(measure, rows, n_units, seed))
        return cls.from_moments(first.moments, measure, n_units, selector, seed, scale=scale)

    @classmethod
    @outside_inference_mode
    @torch.no_grad()
    def from_moments(
        cls,
        moments: Moments,
        measure: Measure,
        n_units: int | None,
        selector: PathSelector | None = None,
        seed: int = 0,
        *,
        scale: str = SCALE,
    ) -> IntegerFeatures:
        """Freeze the map that :meth:`fit` makes, from sums over its samples, which may lie with many owners.

        Args:
            moments: of all samples.
            measure: the units, on the rows that ``structure/measured_rows.py`` chooses.
            n_units: as in :meth:`fit`; so are the others.
            selector: or None.
            seed: of the random units.
            scale: as in :meth:`fit`.
        """
        n_units, seed = require_kind("IntegerFeatures.from_moments", n_units, selector, seed, scale)
        mean, factors = moments.centre_and_scale(scale)
        if selector is not None:
            return cls(mean, factors, selector_layers(measure, mean, factors, selector))
        assert n_units is not None
        return cls(mean, factors, random_layers(measure, n_units, len(mean), seed), seed, WINDOWS)

    @property
    def in_features(self) -> int:
        """D, the columns of raw x."""
        return len(self.mean)

    @property
    def n_units(self) -> int:
        """The units of the last layer."""
        return len(self.layers[-1].weight)

    @property
    def n_features(self) -> int:
        """M = n_units + D + 1."""
        return self.n_units + self.in_features + 1

    def __repr__(self) -> str:
        kind = "of samples" if self.seed is None else f"seed={self.seed}"
        return (
            f"IntegerFeatures(D={self.in_features}, n_units={self.n_units}, {kind}, {self.features_id[:12]}…)"
        )

    @torch.no_grad()
    def transform(self, x: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """Return the features uint8 ``[N, M]``, values 0 to 127, of raw x ``[N, D]``, on x's device.

        Args:
            x: any real numbers, finite; other types than float32 are rounded to it first.

        Raises:
            ValueError: another width, or NaN or infinite values, by row and column.
        """
        x = as_samples("IntegerFeatures.transform", x, self.in_features)
        mean, scale, layers = self._on(x.device)
        return integer_features(x, mean, scale, layers)

    def inputs(self, x: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """Return q + 64 uint8 ``[N, D]`` alone, what :meth:`transform` tells samples apart by, on the CPU."""
        x = as_samples("IntegerFeatures.inputs", x, self.in_features)
        q = quantised(x.cpu(), self.mean, self.scale)
        return q.add_(64).view(torch.uint8)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, tuple[IntegerLayer, ...]]:
        """Return what is frozen where samples lie."""
        if device.type == "cpu":
            return self.mean, self.scale, self.layers
        if device not in self._elsewhere:
            layers = tuple(
                IntegerLayer(
                    layer.weight.to(device), layer.bias.to(device), layer.multiplier.to(device), layer.shift
                )
                for layer in self.layers
            )
            self._elsewhere[device] = (self.mean.to(device), self.scale.to(device), layers)
        return self._elsewhere[device]

    @property
    def is_of_newer_rule(self) -> bool:
        """Whether a seed draws the weights, by a rule that the first programs do not know."""
        return self.seed is not None and self.windows != 1

    def _compute_id(self) -> str:
        """Return the SHA-256 of sizes and numbers, little end first; the seed is no part of it."""
        sizes = [self.in_features, *(len(layer.weight) for layer in self.layers)]
        shifts = [layer.shift for layer in self.layers]
        digest = hashlib.sha256(json.dumps([FEATURES_FORMAT, 1, sizes, shifts]).encode())
        for tensor in (self.mean, self.scale, *(t for layer in self.layers for t in layer[:3])):
            array = tensor.numpy()
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    def to_state(self) -> dict[str, Tensor]:
        """Return all that is frozen; in place of weights that were drawn, their seed: a few bytes for each unit."""
        state = {"mean": self.mean, "scale": self.scale}
        state["shift"] = torch.tensor([layer.shift for layer in self.layers], device="cpu")
        for i, layer in enumerate(self.layers):
            state |= {f"bias_{i}": layer.bias, f"multiplier_{i}": layer.multiplier}
            if self.seed is None:
                state[f"weight_{i}"] = layer.weight
        if self.seed is not None:
            state["seed"] = torch.tensor(self.seed, device="cpu")
            if self.is_of_newer_rule:  # the first has no name, and its files stay what they were
                state["windows"] = torch.tensor(self.windows, device="cpu")
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> IntegerFeatures:
        """Make the map of what :meth:`to_state` gave.

        Raises:
            ValueError: something is missing, or does not fit the rest.
        """
        try:
            seed = int(state["seed"]) if "seed" in state else None
            windows = int(state["windows"]) if "windows" in state else 1
            if windows not in WINDOW_LENGTHS:
                raise ValueError(
                    f"IntegerFeatures: windows must be drawn by a rule of 1 to {WINDOWS}, got {windows}: a newer "
                    "version wrote it"
                )
            shifts = state["shift"].tolist()
            layers = []
            for i, shift in enumerate(shifts):
                bias, multiplier = state[f"bias_{i}"], state[f"multiplier_{i}"]
                if seed is None:
                    weight = state[f"weight_{i}"]
                else:
                    width = len(state["mean"])
                    weight, _ = random_weights(require_seed("from_state", seed), len(bias), width, windows)
                layers.append(IntegerLayer(weight, bias, multiplier, int(shift)))
            return cls(state["mean"], state["scale"], layers, seed, windows)
        except KeyError as error:
            raise ValueError(f"IntegerFeatures: the state must hold {error.args[0]!r}, got none") from None

    def to_bytes(self) -> bytes:
        """Return a features file's content."""
        metadata = {
            "format": FEATURES_FORMAT,
            "version": str(FEATURES_VERSION if self.is_of_newer_rule else 1),
            "features_id": self.features_id,
        }
        return tensors_to_bytes(self.to_state(), metadata)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, whole or not at all."""
        write_files({Path(path): self.to_bytes()})

    @classmethod
    @outside_inference_mode
    def load(cls, path: str | os.PathLike[str]) -> IntegerFeatures:
        """Read a features file; its content must match the features_id that it states.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, or of another format.
        """
        return cls.from_file(TensorFile(Path(path), FEATURES_FORMAT, newest=FEATURES_VERSION, whole_from=1))

    @classmethod
    def from_file(cls, file: TensorFile, prefix: str = "") -> IntegerFeatures:
        """Read the map from an open file, whose tensors' names follow ``prefix``."""
        try:
            features = cls.from_state(file.tensors(prefix))
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{file.path}: {error}") from None
        stated = file.sha256("features_id")
        if features.features_id != stated:
            raise ValueError(
                f"{file.path}: features_id must be {stated[:12]}… as the file states, but its content has "
                f"{features.features_id[:12]}…; the file is damaged"
            )
        return features
