"""This module keeps the frozen input projection (`projection.py`) and path selector's hidden layers in one file."""

from __future__ import annotations

import copy
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from glai_native.data.checks import FLOATS, require_dense, require_samples
from glai_native.gates.packed import PackedGates
from glai_native.gates.packing import pack_gates, selector_gates
from glai_native.gates.paths import count_paths, require_kept_paths, structure_gates
from glai_native.gates.store import holds_store
from glai_native.machine.files import TensorFile, hash_values, shown, tensors_to_bytes
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.precision import in_own_precision, is_narrower
from glai_native.machine.watching import is_watched
from glai_native.machine.writing import find_file, make_folder
from glai_native.structure.projection import InputProjection

STRUCTURE_FILE = "structure.safetensors"
STRUCTURE_FORMAT = "glai-structure"
STRUCTURE_VERSION = 3  # 1 and 2, of files with kept paths, have a checksum over their tensors alone

# Samples whose pre-activations exist at a time while gates are captured.
CAPTURE_ROWS = 16384


def stated_structure(state: Mapping[str, Any], prefix: str) -> str | None:
    """Return the structure_id that the state of a selector or an estimator, its names after ``prefix``, states."""
    stated = state.get(f"{prefix}_extra_state") or None
    if stated is not None and stated.startswith("{"):  # with what an estimator's outputs mean
        stated = json.loads(stated)["structure_id"]
    return cast("str | None", stated)


def require_same_structure(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Raise, before a state is loaded, if it is of another structure than the module: by what it states, or holds."""
    mine, theirs = getattr(module, "structure_id", None), stated_structure(state, prefix)
    if mine is not None and theirs is not None and mine != theirs:
        raise ValueError(
            f"{type(module).__name__}: the state must be of structure_id {mine[:12]}… like this module, "
            f"got {theirs[:12]}…; a whole model (GLAI, GLAIHead) takes another's structure over"
        )
    if isinstance(module, PathSelector) and holds_another(state, prefix, module):
        raise ValueError(
            f"PathSelector: the state must hold the numbers of structure_id {module.structure_id[:12]}… like this "
            "module, got others; it was changed since it was taken, or is another structure's without its structure_id"
        )


def holds_another(state: Mapping[str, Any], prefix: str, selector: PathSelector) -> bool:
    """Return whether a state holds other numbers than a selector's own; it may lack any of them."""
    own = selector.state_dict()
    for key, found in state.items():
        name = key[len(prefix) :]
        if not key.startswith(prefix) or not isinstance(found, Tensor) or name.startswith("output_"):
            continue
        expected = own.get(name)
        if expected is None:
            if name in selector._buffers or name.removeprefix("projection.") in selector.projection._buffers:
                return True
        elif found.shape != expected.shape or (
            not (found.is_meta or expected.is_meta) and not torch.equal(found.detach().to(expected), expected)
        ):
            return True
    return False


class PathSelector(nn.Module):
    """A frozen ReLU network whose units decide, for each sample, which paths are on.

    Source: the path selector of GreenLightningAI (Duato, Mestre, Dolz, Quintana-Ortí, arXiv 2312.09971); activation
    patterns: Raghu et al., arXiv 1606.05336.

    Args:
        mlp: ``nn.Sequential(Linear, ReLU, ..., Linear)`` with at least one hidden layer; it reads z. Copied.
        projection: raw x to z; None is the identity.

    Attributes:
        widths: units per hidden layer.
        kept_paths: int64 ``[K]``, ascending, the paths of a pruned structure by their row-major numbers; None: all.
        structure_id: SHA-256 of projection, hidden layers and kept paths.
        parent_id: of the structure that this one was pruned or grown from; None: of no other.

    Raises:
        ValueError: ``mlp`` is another kind of network, or its input is not the projection's output.
    """

    kept_paths: Tensor | None

    @outside_inference_mode
    def __init__(self, mlp: nn.Sequential, projection: InputProjection | None = None) -> None:
        super().__init__()
        linears = _linear_layers(mlp)
        if projection is None:
            projection = InputProjection.identity(linears[0].in_features)
        if projection.out_features != linears[0].in_features:
            raise ValueError(
                f"PathSelector: the first layer of mlp must read D={projection.out_features} features of z, "
                f"got {linears[0].in_features}"
            )
        hidden = [_weight_and_bias(linear) for linear in linears[:-1]]
        self._set(copy.deepcopy(projection), hidden, _weight_and_bias(linears[-1]))

    def _set(
        self,
        projection: InputProjection,
        hidden: list[tuple[Tensor, Tensor]],
        output: tuple[Tensor, Tensor] | None,
        kept_paths: Tensor | None = None,
        parent_id: str | None = None,
    ) -> None:
        self.projection = projection
        self.widths = tuple(weight.shape[0] for weight, _ in hidden)
        for i, (weight, bias) in enumerate(hidden):
            self.register_buffer(f"hidden_weight_{i}", weight)
            self.register_buffer(f"hidden_bias_{i}", bias)
        self.register_buffer("output_weight", None if output is None else output[0])
        self.register_buffer("output_bias", None if output is None else output[1])
        if kept_paths is not None:
            require_kept_paths("PathSelector", kept_paths, self.widths)
            if len(kept_paths) == count_paths(self.widths):
                kept_paths = None  # one structure, one id
        self.register_buffer("kept_paths", kept_paths)
        for name, tensor in self.named_buffers():
            require_dense("PathSelector", name, tensor)
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError("PathSelector: weights must be finite, got NaN or infinite values")
        self.structure_id = self._compute_id()
        self.parent_id = parent_id
        self.register_load_state_dict_pre_hook(require_same_structure)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PathSelector:
        """Move or cast; a cast that rounds makes another structure, which says so."""
        before = {name: tensor.dtype for name, tensor in self.named_buffers()}
        super()._apply(fn, recurse)
        if any(is_narrower(tensor.dtype, before[name]) for name, tensor in self.named_buffers()):
            rounded = self._compute_id()
            if rounded != self.structure_id:
                self.structure_id, self.parent_id = rounded, self.structure_id
        return self

    @classmethod
    def from_layers(
        cls,
        projection: InputProjection,
        hidden: Sequence[tuple[Tensor, Tensor]],
        kept_paths: Tensor | None = None,
        parent_id: str | None = None,
    ) -> PathSelector:
        """Make a selector without an output layer.

        ``hidden`` holds weight ``[h_l, h_(l-1)]`` and bias ``[h_l]`` of each hidden layer, which are not copied.
        """
        selector = cls.__new__(cls)
        nn.Module.__init__(selector)
        selector._set(projection, list(hidden), None, kept_paths, parent_id)
        return selector

    def get_extra_state(self) -> str:
        """Return the structure_id, part of ``state_dict``."""
        return self.structure_id

    def set_extra_state(self, state: str) -> None:
        """Take nothing over: a state of the same structure_id brings nothing new, and others were refused before."""

    @property
    def in_features(self) -> int:
        """Columns of raw x."""
        return self.projection.in_features

    @property
    def z_features(self) -> int:
        """D, the width of z."""
        return self.projection.out_features

    @property
    def n_paths(self) -> int:
        """P = (h_1+1)·…·(h_L+1), or how many of them a pruned structure keeps."""
        return count_paths(self.widths) if self.kept_paths is None else len(self.kept_paths)

    @property
    def hidden(self) -> list[tuple[Tensor, Tensor]]:
        """Weight ``[h_l, h_(l-1)]`` and bias ``[h_l]`` of each hidden layer."""
        buffers = (
            self._buffers
        )  # a tenth of what attributes of a module cost, which a call for one sample feels
        return [
            (cast(Tensor, buffers[f"hidden_weight_{i}"]), cast(Tensor, buffers[f"hidden_bias_{i}"]))
            for i in range(len(self.widths))
        ]

    @property
    def output(self) -> tuple[Tensor, Tensor] | None:
        """Weight ``[C, h_L]`` and bias ``[C]`` of the output layer; None when loaded, pruned or grown."""
        weight, bias = self.output_weight, self.output_bias
        if isinstance(weight, Tensor) and isinstance(bias, Tensor):
            return weight, bias
        return None

    @in_own_precision
    def project(self, x: Tensor) -> Tensor:
        """Project raw x ``[N, in_features]`` of any real dtype to z ``[N, D]`` of the network's dtype."""
        require_samples("PathSelector", x, self.in_features)
        if x.is_complex():
            raise ValueError(f"PathSelector: x must be real numbers, got {x.dtype}")
        dtype = self._dtype
        z = cast(Tensor, self.projection(x.to(dtype) if x.dtype is torch.bool else x))
        return z if z.dtype == dtype else z.to(dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """Of the network's weights and of z."""
        return cast(Tensor, self._buffers["hidden_weight_0"]).dtype

    @in_own_precision
    @torch.no_grad()
    def unit_gates_of(self, z: Tensor) -> list[PackedGates]:
        """Make the unit bits per hidden layer from z ``[N, D]``, the always-on unit excluded."""
        require_samples("PathSelector", z, self.z_features)
        dtype = self._dtype
        if z.dtype != dtype:
            names = [str(d).removeprefix("torch.") for d in (dtype, z.dtype)]
            raise ValueError(f"PathSelector: z must be {names[0]} like the network's weights, got {names[1]}")
        layers = layer_gates(z, self.hidden)
        for gates in layers:
            gates.structure_id = self.structure_id
        return layers

    def unit_gates(self, x: Tensor) -> list[PackedGates]:
        """Make the unit bits per hidden layer from raw x, the always-on unit excluded; x must be finite."""
        z = self.project(x)
        _require_finite("x", z)
        return self.unit_gates_of(z)

    def gates(self, x: Tensor) -> PackedGates:
        """Make path gates ``[N, n_paths]`` from raw x, always-on units included; x must be finite."""
        return self.path_gates(self.unit_gates(x))

    def gates_of(self, z: Tensor) -> PackedGates:
        """Make path gates ``[N, n_paths]`` from z ``[N, D]`` as :meth:`project` gives it; z must be finite.

        Where z is needed too, this projects once: ``z = selector.project(x); gates = selector.gates_of(z)``.
        """
        require_samples("PathSelector", z, self.z_features, "z")
        _require_finite("z", z)
        return self.path_gates(self.unit_gates_of(z))

    def path_gates(self, layers: Sequence[PackedGates]) -> PackedGates:
        """Make path gates ``[N, n_paths]`` from the unit bits that :meth:`unit_gates` returns, or a store."""
        return structure_gates("PathSelector.path_gates", self, layers)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the original network's output ``[N, C]`` from raw x, which needs its output layer."""
        if self.output is None:
            raise ValueError(
                "PathSelector: this selector has no output layer (it was loaded from a file, pruned or grown), "
                "it can only make gates"
            )
        activation = self.project(x)
        for weight, bias in self.hidden:
            activation = nn.functional.linear(activation, weight, bias).relu()
        return nn.functional.linear(activation, *self.output)

    def to_bytes(self) -> bytes:
        """Return a structure file's content: projection and hidden layers, not the output layer."""
        if self._compute_id() != self.structure_id:
            raise ValueError(
                "PathSelector: the structure was changed after it was frozen (its weights no longer match "
                f"structure_id {self.structure_id[:12]}…), make a new PathSelector from the changed network"
            )
        state = {name: value for name, value in self.state_dict().items() if not name.startswith("output_")}
        return tensors_to_bytes(state, self._metadata())

    @classmethod
    @outside_inference_mode
    def load(cls, path: Path) -> PathSelector:
        """Read a structure file; its content must match the structure_id that it states."""
        file = open_structure(path)
        widths = file.sizes("layer_widths")
        in_features = file.integer("in_features", 1)
        kind = file.entry("projection")
        if kind not in ("identity", "centring", "rotation"):
            raise ValueError(
                f"{path}: projection must be 'identity', 'centring' or 'rotation', got {shown(kind)}"
            )
        mean = scale = rotation = None
        if kind != "identity":
            mean = file.tensor("projection.mean", FLOATS, (in_features,)).clone()
            scale = file.tensor("projection.scale", FLOATS, ()).clone()
        if kind == "rotation":
            rotation = file.tensor("projection.rotation", FLOATS, (in_features, None)).clone()
        projection = InputProjection(in_features, mean, scale, rotation)
        hidden = []
        fan_in = projection.out_features
        for i, width in enumerate(widths):
            weight = file.tensor(f"hidden_weight_{i}", FLOATS, (width, fan_in)).clone()
            hidden.append((weight, file.tensor(f"hidden_bias_{i}", (weight.dtype,), (width,)).clone()))
            fan_in = width
        kept_paths = None
        if "kept_paths" in file:
            kept_paths = file.tensor("kept_paths", (torch.int64,), (None,)).clone()
        parent_id = file.sha256("parent_id") if "parent_id" in file.metadata else None
        selector = cls.from_layers(projection, hidden, kept_paths, parent_id)
        stated = file.sha256("structure_id")
        if selector.structure_id != stated:
            raise ValueError(
                f"{path}: structure_id must be {stated[:12]}… as the file states, but its content has "
                f"{selector.structure_id[:12]}…; the file is damaged"
            )
        return selector

    def _metadata(self) -> dict[str, str]:
        parent = {} if self.parent_id is None else {"parent_id": self.parent_id}
        return parent | {
            "format": STRUCTURE_FORMAT,
            "version": str(STRUCTURE_VERSION),
            "structure_id": self.structure_id,
            "projection": self.projection.kind,
            "in_features": str(self.in_features),
            "layer_widths": json.dumps(self.widths),
        }

    def _compute_id(self) -> str:
        """Return the SHA-256 of architecture and values, as float64, so that a wider copy is the same structure."""
        architecture = ["glai-structure", 1, self.projection.kind, self.in_features, list(self.widths)]
        tensors = [
            t
            for t in (self.projection.mean, self.projection.scale, self.projection.rotation)
            if t is not None
        ]
        tensors += [tensor for layer in self.hidden for tensor in layer]
        if self.kept_paths is not None:
            architecture.append("kept_paths")
            tensors.append(self.kept_paths)
        return hash_values(architecture, tensors)


def layer_gates(z: Tensor, hidden: Sequence[tuple[Tensor, Tensor]]) -> list[PackedGates]:
    """Make the unit bits of hidden layers, weight ``[h_l, h_(l-1)]`` and bias ``[h_l]`` each, reading z ``[N, D]``."""
    # Of the last layer nobody reads the activation. Measured by glai_bench.ops.selector_gates (AVX-512, one and two
    # threads), torch's product and packing after it take 0.9 to 1.7 times as long, and whether a
    # pre-activation near zero is positive may then depend on the rows beside it. The CPU's kernel takes no
    # 16-bit floats.
    fused = z.is_cuda or z.dtype in FLOATS
    blocks: list[list[PackedGates]] = [[] for _ in hidden]
    whole = is_watched(z) or z.shape[0] <= CAPTURE_ROWS  # a graph is for any number of samples
    for rows in (z,) if whole else z.split(CAPTURE_ROWS):
        activation = rows
        for block, (weight, bias) in zip(blocks, hidden, strict=True):
            if fused and block is blocks[-1]:
                gates = selector_gates(activation, weight, bias)
            else:
                pre_activation = nn.functional.linear(activation, weight, bias)
                gates = pack_gates(pre_activation)
                activation = pre_activation.relu_()
            block.append(gates)
    return [block[0] if len(block) == 1 else PackedGates.cat(block) for block in blocks]


def _require_finite(name: str, z: Tensor) -> None:
    """Raise where a bit could not show what x was."""
    if not bool(torch.isfinite(z).all()):
        raise ValueError(f"PathSelector: {name} must be finite, got NaN or infinite values")


def _linear_layers(mlp: nn.Sequential) -> list[nn.Linear]:
    expected = (
        "PathSelector: mlp must be nn.Sequential(Linear, ReLU, ..., Linear) with at least one hidden layer"
    )
    if not isinstance(mlp, nn.Sequential):
        raise ValueError(f"{expected}, got {type(mlp).__name__}")
    layers = list(mlp)
    kinds = [nn.Linear if i % 2 == 0 else nn.ReLU for i in range(len(layers))]
    fits = all(isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=True))
    if len(layers) < 3 or len(layers) % 2 == 0 or not fits:
        raise ValueError(f"{expected}, got ({', '.join(type(layer).__name__ for layer in layers)})")
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    for before, after in itertools.pairwise(linears):
        if before.out_features != after.in_features:
            raise ValueError(
                f"PathSelector: layers of mlp must chain, got {before.out_features} outputs into "
                f"{after.in_features} inputs"
            )
    return linears


def _weight_and_bias(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    weight = linear.weight.detach().clone()
    bias = weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach().clone()
    return weight, bias


def open_structure(path: Path) -> TensorFile:
    """Open a structure file and check it; of its content only that it is as it was written."""
    return TensorFile(path, STRUCTURE_FORMAT, newest=STRUCTURE_VERSION)


def prepare_folder(owner: str, folder: str | os.PathLike[str], structure_id: str, overwrite: bool) -> Path:
    """Make the folder of a model; raise if it holds a model of another structure, unless told to overwrite."""
    folder = make_folder(owner, folder)
    structure = folder / STRUCTURE_FILE
    if holds_store(folder):
        raise ValueError(f"{owner}: {folder} holds a gate store, save the model to a folder of its own")
    if find_file(structure) is not None and not overwrite:
        found = open_structure(structure).sha256("structure_id")
        if found != structure_id:
            raise ValueError(
                f"{owner}: {folder} holds a model of another structure ({found[:12]}…, this one is "
                f"{structure_id[:12]}…), save to another folder or pass overwrite=True"
            )
    return folder
