"""The file of a path kernel model holds centres and coefficients as tensors; what the fit was like as metadata."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from glai_native.machine.files import TensorFile, is_number

PATH_KERNEL_FILE = "path_kernel.safetensors"
PATH_KERNEL_FORMAT = "glai-path-kernel"
# 1 has a checksum over its tensors alone, and does not say what was left unsolved; 2 does not keep targets.
PATH_KERNEL_VERSION = 3


def open_kernel_model(path: Path) -> TensorFile:
    """Open a path kernel model's file and check it; of its content only that it is as it was written."""
    return TensorFile(path, PATH_KERNEL_FORMAT, newest=PATH_KERNEL_VERSION, whole_from=2)


@dataclass(frozen=True)
class FitFigures:
    """What a fit was like: attributes of a :class:`PathKernelModel`."""

    n_samples: int
    l2: float
    loo_error: float | None
    loo_accuracy: float | None
    unsolved: float

    def to_metadata(self) -> dict[str, str]:
        """Return the file's entries."""
        return {
            "n_samples": str(self.n_samples),
            "l2": repr(self.l2),
            "unsolved": repr(self.unsolved),
            "loo_error": _finite_or_null(self.loo_error),
            "loo_accuracy": _finite_or_null(self.loo_accuracy),
        }

    @classmethod
    def read(cls, file: TensorFile, n_centres: int) -> FitFigures:
        """Read the file's entries; raise for what no fit on at least so many samples can have."""
        l2 = file.entry("l2", float)
        file.require("l2", is_number(l2, 0), "a finite number >= 0")
        unsolved = file.entry("unsolved", float) if "unsolved" in file.metadata else 0.0
        file.require("unsolved", is_number(unsolved, 0), "a finite number >= 0")
        error, accuracy = file.json("loo_error"), file.json("loo_accuracy")
        file.require("loo_error", error is None or is_number(error, 0), "null or a number >= 0")
        sound = accuracy is None or is_number(accuracy, 0, 1 + 1e-6)  # of float32 sums
        file.require("loo_accuracy", sound, "null or a number from 0 to 1")
        return cls(file.integer("n_samples", n_centres), l2, error, accuracy, unsolved)


def _finite_or_null(value: float | None) -> str:
    return json.dumps(value if value is not None and math.isfinite(value) else None)
