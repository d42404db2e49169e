"""Rows of a rule that is known, made block by block: the same ones for any number of rows, however they are cut.

Eight latent numbers z, standard normal, decide a row: x ``[D]`` is a fixed random mixture of them with a little noise,
and a fixed two-layer network of z, with |·| for its units, gives ten scores and a value. The class is that of the
largest score, but for a tenth of the rows, of which it is drawn; a tenth of the value's variance is noise. Who knows
the rule and z is right on 91%, or has an R2 of 0.90: no learner can do better. |·| is even, so that linear models, of
classes and of values, are far behind.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CLASSES, LATENT, HIDDEN = 10, 8, 32
X_NOISE, DRAWN_LABELS, VALUE_NOISE = 0.25, 0.1, 0.1
BEST_ACCURACY = 1 - DRAWN_LABELS + DRAWN_LABELS / CLASSES
BEST_R2 = 1 - VALUE_NOISE
# Rows that are drawn at once, a row group of a parquet file too.
BLOCK = 10_000
# Blocks from here on are tested on.
TEST_BLOCK, TEST_ROWS = 1 << 20, 20_000
RULE, SCALE_OF_SCORES, MIXTURE, ROWS = range(4)  # what numbers are drawn for
TASKS = ("classification", "regression")
LABEL = "label"

Array = NDArray[Any]


class Block(NamedTuple):
    """Rows: x float32 ``[n, D]``, classes int64 ``[n]``, values float32 ``[n]``."""

    x: Array
    classes: Array
    values: Array

    def targets(self, task: str) -> Array:
        """Return what is learnt."""
        return self.classes if task == "classification" else self.values


class Rule:
    """What rows of D features, and their targets, are drawn by.

    Args:
        features: D.
        seed: of the rule and the rows.
    """

    def __init__(self, features: int, seed: int = 0) -> None:
        self.features, self.seed = features, seed
        rule = self._random(RULE)
        self._hidden = rule.standard_normal((LATENT, HIDDEN)) * 1.5 / LATENT**0.5
        self._bias = rule.standard_normal(HIDDEN) / 2
        self._output = rule.standard_normal((HIDDEN, CLASSES + 1))
        scores = self._raw_scores(self._random(SCALE_OF_SCORES).standard_normal((BLOCK, LATENT)))
        self._mean, self._deviation = scores.mean(0), scores.std(0)
        self._mixture = self._random(MIXTURE).standard_normal((LATENT, features)) / LATENT**0.5

    def block(self, number: int) -> Block:
        """Return block ``number``, of ``BLOCK`` rows."""
        random = self._random(ROWS, number)
        latent = random.standard_normal((BLOCK, LATENT))
        x = latent @ self._mixture + X_NOISE * random.standard_normal((BLOCK, self.features))
        scores = (self._raw_scores(latent) - self._mean) / self._deviation
        drawn = random.random(BLOCK) < DRAWN_LABELS
        classes = np.where(drawn, random.integers(0, CLASSES, BLOCK), scores[:, :CLASSES].argmax(1))
        noise = random.standard_normal(BLOCK) * VALUE_NOISE**0.5
        values = scores[:, CLASSES] * (1 - VALUE_NOISE) ** 0.5 + noise
        return Block(x.astype(np.float32), classes, values.astype(np.float32))

    def blocks(self, rows: int, first: int = 0) -> Iterator[Block]:
        """Yield the first so many rows from block ``first`` on; the last block may be a part of one."""
        for begin in range(0, rows, BLOCK):
            whole = self.block(first + begin // BLOCK)
            yield Block(*(part[: rows - begin] for part in whole))

    def _raw_scores(self, latent: Array) -> Array:
        scores: Array = np.abs(latent @ self._hidden + self._bias) @ self._output
        return scores

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what])


def write_arrays(folder: Path, rule: Rule, rows: int, task: str, first: int = 0) -> Path:
    """Write x.npy and y.npy, unless they are there; a block at a time, and no page of them is mapped."""
    if (folder / "y.npy").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    target = np.dtype(np.int64 if task == "classification" else np.float32)
    with (folder / "x.npy").open("wb") as xs, (folder / "unfinished").open("wb") as ys:
        _write_header(xs, np.dtype(np.float32), (rows, rule.features))
        _write_header(ys, target, (rows,))
        for block in rule.blocks(rows, first):
            xs.write(block.x.tobytes())
            ys.write(block.targets(task).astype(target).tobytes())
    (folder / "unfinished").rename(folder / "y.npy")
    return folder


def _write_header(file: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def write_parquet(path: Path, rule: Rule, rows: int, task: str, first: int = 0) -> Path:
    """Write columns x0, x1, ... and ``label``, unless the file is there; a block is a row group."""
    if path.exists():
        return path
    arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    writer = None
    for block in rule.blocks(rows, first):
        columns = {f"x{i}": column for i, column in enumerate(np.ascontiguousarray(block.x.T))}
        table = arrow.table(columns | {LABEL: block.targets(task)})
        writer = writer or parquet.ParquetWriter(unfinished, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
        unfinished.rename(path)
    return path


def read_chunks(folder: Path, size: int) -> Iterator[tuple[Array, Array]]:
    """Yield so many rows (x, y) at a time of x.npy and y.npy, read without a memory map."""
    with (folder / "x.npy").open("rb") as xs, (folder / "y.npy").open("rb") as ys:
        (rows, features), x_type = _read_header(xs)
        _, y_type = _read_header(ys)
        for begin in range(0, rows, size):
            count = min(size, rows - begin)
            x = np.fromfile(xs, x_type, count * features).reshape(count, features)
            yield x, np.fromfile(ys, y_type, count)


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype
