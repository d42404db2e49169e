"""This module keeps an estimator's numbers: the parameters of each kind, and what belongs to them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glai_native.data.checks import FLOATS
from glai_native.data.labels import Label
from glai_native.estimator.directions import directions_id, extend_directions, require_directions
from glai_native.estimator.outputs import Outputs, require_order
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.interrupts import uninterrupted
from glai_native.machine.memory import require_memory
from glai_native.structure.selector import require_same_structure


class PathNumbers(Outputs, nn.Module):
    """What a :class:`~glai_native.PathEstimator` is made of, whose arguments and attributes it has."""

    weight: nn.Parameter
    bias: nn.Parameter
    directions: Tensor | None
    u: nn.Parameter
    beta: nn.Parameter
    constant_weight: nn.Parameter
    constant_bias: nn.Parameter
    samples_seen: Tensor
    on_counts: Tensor
    provenance: dict[str, Any]

    @outside_inference_mode
    def __init__(
        self,
        n_paths: int,
        in_features: int,
        out_features: int,
        directions: Tensor | None = None,
        *,
        n_units: int = 0,
        structure_id: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        sizes = {"n_paths": n_paths, "in_features": in_features, "out_features": out_features}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"PathEstimator: {name} must be >= 1, got {size}")
        if dtype not in FLOATS:
            raise ValueError(f"PathEstimator: dtype must be torch.float32 or torch.float64, got {dtype}")
        if n_units and (n_paths != 1 or directions is not None or not 0 < n_units < in_features):
            raise ValueError(
                f"PathEstimator: n_units={n_units} must be of P=1 path over more features, without directions, got "
                f"P={n_paths}, D={in_features}{'' if directions is None else ' and directions'}"
            )
        self.n_units = n_units
        self.structure_id = structure_id
        self.provenance = {}
        self.solved_from: str | None = None  # the state of the statistics, where it was solved from some
        self.register_load_state_dict_pre_hook(require_same_structure)
        paths, features, outputs = {"P": n_paths}, {"D": in_features}, {"C": out_features}
        if directions is None:
            parameters = {"weight": paths | features | outputs, "bias": paths | outputs}
        else:
            require_directions("PathEstimator", directions, n_paths, out_features)
            device = directions.device if device is None else device
            form = torch.contiguous_format
            directions = directions.detach().to(device, dtype, copy=True, memory_format=form)
            parameters = {"u": paths | features, "beta": paths}
            parameters |= {"constant_weight": features | outputs, "constant_bias": outputs}
        for name, dims in parameters.items():
            self._add_parameter(name, dims, dtype, device)
        self.register_buffer("directions", directions)
        self.register_buffer("samples_seen", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer(
            "on_counts", torch.zeros((n_paths, out_features), dtype=torch.int64, device=device)
        )

    def _add_parameter(
        self, name: str, sizes: dict[str, int], dtype: torch.dtype, device: torch.device | str | None
    ) -> None:
        device = torch.get_default_device() if device is None else torch.device(device)
        require_memory_of_numbers(name, sizes, dtype.itemsize, device)
        zeros = torch.zeros(tuple(sizes.values()), dtype=dtype, device=device)
        self.register_parameter(name, nn.Parameter(zeros))

    @property
    def n_paths(self) -> int:
        """P."""
        return self.on_counts.shape[0]

    @property
    def in_features(self) -> int:
        """D."""
        return (self.weight if self.directions is None else self.u).shape[1]

    @property
    def out_features(self) -> int:
        """C."""
        return self.on_counts.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return (self.weight if self.directions is None else self.u).dtype

    @property
    def directions_id(self) -> str | None:
        """SHA-256 of V as float64; None for full paths. Computed when asked."""
        return None if self.directions is None else directions_id(self.directions)

    @property
    def kind(self) -> str:
        """Which it is of ``"full paths"``, ``"output directions"`` and ``"units"``."""
        if self.directions is not None:
            return "output directions"
        return "units" if self.n_units else "full paths"

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained: (P-1)(D+1) + (D+1)C with directions, P(D+1)C without."""
        paths = self.n_paths * self.out_features if self.directions is None else self.n_paths - 1
        constant = 0 if self.directions is None else self.out_features
        return (paths + constant) * (self.in_features + 1)

    @property
    def frozen_parameters(self) -> int:
        """How many are not: (P-1)C of V, or 0."""
        return 0 if self.directions is None else (self.n_paths - 1) * self.out_features

    def extra_repr(self) -> str:
        """Return the sizes for ``repr``."""
        sizes = f"n_paths={self.n_paths}, in_features={self.in_features}, out_features={self.out_features}"
        if self.n_units:
            return f"{sizes}, n_units={self.n_units}"
        return sizes if self.directions is None else f"{sizes}, directions"

    @torch.no_grad()
    def add_outputs(self, k: int, seed: int = 0, labels: Sequence[Label] | None = None) -> None:
        """Append ``k`` outputs, in place; what the others compute does not change.

        Full paths get zero columns. With directions, V gets random columns (:func:`extend_directions`), so that the new
        outputs are random functions of the paths until they are trained, and path P-1 zero columns. Parameters are
        replaced by wider ones: an optimizer must be made anew.

        Args:
            k: how many, >= 1.
            seed: of the columns of V; copies extended with equal seeds can still be merged.
            labels: of the new classes, where the others have labels; None: labels that count 0, 1, ... go on.

        Raises:
            ValueError: the others have labels that do not count from 0, and there are none for these.
        """
        if k < 1:
            raise ValueError(f"add_outputs: k must be >= 1, got {k}")
        known = self._labels_of_added("add_outputs", k, labels)
        names = ["weight", "bias"]
        wider: dict[str, Tensor] = {"on_counts": _with_zero_columns(self.on_counts, k)}
        if self.directions is not None:
            added = None if known is None else known[-k:]
            wider["directions"] = extend_directions(self.directions, k, seed, added)
            names = ["constant_weight", "constant_bias"]
        for name in names:
            before = self.get_parameter(name)
            wider[name] = nn.Parameter(_with_zero_columns(before, k), requires_grad=before.requires_grad)
        with uninterrupted():  # all that can fail is done
            for name, tensor in wider.items():
                setattr(self, name, tensor)
            self._labels = None if known is None else tuple(known)
            self._scaling_of_added(k)

    def _append_outputs(self, labels: Sequence[Label], seed: int) -> None:
        self.add_outputs(len(labels), seed, labels)

    @torch.no_grad()
    def permute_outputs(self, order: Tensor) -> None:
        """Make output i what output ``order[i]`` was, in place: weights, directions, counts, labels, units.

        Args:
            order: int64 ``[C]``, each output once.
        """
        require_order("permute_outputs", order, self.out_features)
        order = order.to(self.on_counts.device)
        tensors: list[Tensor] = [self.on_counts, *self.parameters()]
        if self.directions is not None:
            tensors = [self.on_counts, self.directions, self.constant_weight, self.constant_bias]
        permuted = [tensor[..., order] for tensor in tensors]
        with uninterrupted():  # all that can fail is done
            for tensor, values in zip(tensors, permuted, strict=True):
                tensor.copy_(values)
            self._permute_meaning(order)

    def get_extra_state(self) -> str:
        """Return the structure_id, part of ``state_dict``; as JSON with what the outputs mean, where that is known."""
        meaning = self.outputs_metadata()
        if not meaning:
            return self.structure_id or ""
        stated = {"structure_id": self.structure_id} | {k: json.loads(v) for k, v in meaning.items()}
        return json.dumps(stated)

    def set_extra_state(self, state: str) -> None:
        """Take structure_id and the meaning of outputs over; another structure_id than its own was refused before."""
        stated = json.loads(state) if state.startswith("{") else {"structure_id": state}
        self.structure_id = stated.pop("structure_id") or self.structure_id
        self.temperature = 1.0  # where none is stated
        if stated:
            self._labels = None
            self._set_scaling(None)
            self.set_outputs(stated)


def require_memory_of_numbers(name: str, sizes: dict[str, int], itemsize: int, device: torch.device) -> None:
    """Raise MemoryError, before they are made, where numbers of these sizes take more than there is."""
    shape = ", ".join(f"{letter}={size}" for letter, size in sizes.items())
    require_memory(
        "PathEstimator",
        f"{name} [{shape}]",
        math.prod(sizes.values()) * itemsize,
        device,
        "P is the product of (units + 1) over the layers, use fewer of them",
    )


def _with_zero_columns(t: Tensor, k: int) -> Tensor:
    return torch.cat([t, t.new_zeros((*t.shape[:-1], k))], dim=-1)
