"""Integer statistics go into files, and come out of them, or of sums that were added up elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from uuid import uuid4

from torch import Tensor

from glai_native.machine.files import TensorFile
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.writing import write_files
from glai_native.solvers.exact.adding import IntegerSums
from glai_native.solvers.exact.aligning import LabelledSums
from glai_native.solvers.exact.file import (
    FileContent,
    content_to_pieces,
    open_exact,
    read_exact,
    require_sums_of,
)
from glai_native.solvers.exact.ledger import Ledger
from glai_native.solvers.exact.targets import FixedPoint
from glai_native.structure.integer_features import IntegerFeatures


class FiledSums(LabelledSums):
    """Integer sums with all that their file holds."""

    features: IntegerFeatures
    targets: str
    n_samples: int
    fixed_point: FixedPoint | None
    ledger: Ledger | None
    class_grams: Tensor | None
    _squares: list[int]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, whole or not at all; of gram matrices the upper triangles, and the features' map."""
        write_files({Path(path): self.to_pieces()})

    def to_pieces(self, **entries: str) -> list[bytes | memoryview]:
        """Return a file's content in pieces, which are good until the sums change; ``entries`` join its metadata."""
        content = FileContent(
            self.features,
            self.targets,
            self.n_samples,
            self._sums(),
            self._squares,
            self.fixed_point,
            self.ledger,
        )
        return content_to_pieces(content, self.outputs_metadata() | entries)

    @classmethod
    def load(cls, path: str | os.PathLike[str], features: IntegerFeatures | None = None) -> Self:
        """Read a file of statistics, onto the CPU.

        Args:
            path: the file.
            features: the map that it must be of, which is then shared; None: the file's own.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, of another format, or of other features.
        """
        return cls.from_file(open_exact(Path(path)), features)

    @classmethod
    @outside_inference_mode
    def from_file(cls, file: TensorFile, features: IntegerFeatures | None = None) -> Self:
        """Read a file of statistics that is open."""
        content = read_exact(file, features)
        read = cls._of(content)
        read.read_outputs(file)
        read.ledger = content.ledger  # last, since labels are set before samples are known by them
        return read

    @classmethod
    def from_sums(
        cls,
        features: IntegerFeatures,
        sums: IntegerSums,
        n_samples: int,
        *,
        targets: str = "classes",
        step: float | Sequence[float] | Tensor | None = None,
        centre: float | Sequence[float] | Tensor | None = None,
        squares: Sequence[int] = (),
    ) -> Self:
        """Make statistics, without a ledger, of sums that were added up elsewhere; dense ones are not copied.

        Raises:
            ValueError: they cannot be the sums of so many samples.
        """
        point = FixedPoint.told("from_sums", step, centre, sums.cross.shape[1])
        # As what adds to them in place takes them.
        sums = sums._replace(gram=sums.gram.contiguous(), cross=sums.cross.contiguous())
        try:
            require_sums_of(n_samples, sums, targets, point)
        except ValueError as error:
            raise ValueError(f"from_sums: {error}") from None
        return cls._of(FileContent(features, targets, n_samples, sums, list(squares), point, None))

    @classmethod
    def _of(cls, content: FileContent) -> Self:
        """Return statistics of such content, but for the ledger."""
        made = object.__new__(cls)
        own = {name: getattr(content, name) for name in ("features", "targets", "n_samples", "fixed_point")}
        own |= content.sums._asdict() | {
            "_squares": content.squares,
            "changes": None,
            "ledger": None,
            "state": uuid4().hex,
        }
        made.__dict__ = own
        return made
