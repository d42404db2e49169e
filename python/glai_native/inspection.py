"""What lies in a folder that we wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glai_native.model import GLAI
from glai_native.store import GateStore
from glai_native.structure import STRUCTURE_FILE


def inspect_folder(folder: Path) -> dict[str, Any]:
    """Opens, and so validates, a model's or a gate store's folder and describes it.

    Raises:
        FileNotFoundError: the folder holds neither.
        ValueError: what it holds is damaged.
    """
    if not folder.is_dir():
        what = "is a file, a folder was expected" if folder.exists() else "there is no such folder"
        raise FileNotFoundError(f"{folder}: {what}")
    if (folder / STRUCTURE_FILE).exists():
        return _describe_model(GLAI.load(folder))
    if any(folder.glob("shard-*.safetensors")):
        return _describe_store(GateStore.open(folder))
    raise FileNotFoundError(f"{folder}: holds neither a model ({STRUCTURE_FILE}) nor a gate store (shard-*)")


def _describe_model(model: GLAI) -> dict[str, Any]:
    selector, estimator = model.selector, model.estimator
    frozen = sum(buffer.numel() for buffer in selector.buffers()) + estimator.frozen_parameters
    return {
        "kind": "model",
        "structure_id": model.structure_id,
        "projection": selector.projection.kind,
        "in_features": selector.in_features,
        "layer_widths": list(selector.widths),
        "paths": selector.n_paths,
        "out_features": estimator.out_features,
        "directions": estimator.directions_id or "none: full paths",
        "dtype": str(estimator.dtype).removeprefix("torch."),
        "frozen_parameters": frozen,
        "trained_parameters": estimator.trained_parameters,
        "samples_seen": int(estimator.samples_seen),
    }


def _describe_store(store: GateStore) -> dict[str, Any]:
    layers = store.unit_gates(slice(None))
    return {
        "kind": "gate store",
        "structure_id": store.structure_id,
        "layer_widths": list(store.widths),
        "samples": len(store),
        "bytes_per_sample": store.bytes_per_sample,
        "unit_density": [round(layer.density(), 4) for layer in layers],
        "unit_deviation": [round(layer.deviation(), 4) for layer in layers],
    }
