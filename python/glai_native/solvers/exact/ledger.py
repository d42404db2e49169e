"""The ledger of samples learnt: a sorted multiset of hashes, which tells what can be forgotten, and ids beside them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HASH_BYTES = 16
# What stands where a sample came without an id.
NO_ID: dict[str, Any] = {"int": np.iinfo(np.int64).min, "str": ""}
SHOWN = 8
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,99}\s*", re.ASCII)

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Ledger:
    """Which samples sums hold, by hashes that do not tell what they were; never changed in place.

    Ids are compared as they are written: 3 is the text 3, and not 003. Where some are texts, all are.

    Attributes:
        hashes: ``S16 [N]``, sorted; BLAKE2b of a sample's q and of its target.
        ids: int64 or text ``[N]`` of the same samples, sorted among equal hashes; None: no sample has one.
        as_integers: some may be of a time when those of a .csv were read as integers, 003 as 3; such a text is that
            integer too.
    """

    hashes: Array
    ids: Array | None
    as_integers: bool = False

    @classmethod
    def empty(cls) -> Ledger:
        """Return that of no samples."""
        return cls(np.zeros(0, dtype=f"S{HASH_BYTES}"), None)

    def __len__(self) -> int:
        return len(self.hashes)

    def with_samples(self, hashes: Array, ids: Array | None) -> Ledger:
        """Return this with the samples of some hashes, and their ids where they have some."""
        kind = _common_kind(self.ids, ids)
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        places = np.searchsorted(self.hashes, hashes)
        joined = np.insert(self.hashes, places, hashes)
        if kind is None:
            return Ledger(joined, None)
        mine, theirs = (_ids_of_kind(of, n, kind) for of, n in ((self.ids, len(self)), (ids, len(hashes))))
        all_ids = np.insert(mine, places, theirs[order])
        turned = self.ids is not None and _kind(self.ids) != kind  # texts have another order than integers
        equal = (hashes[1:] == hashes[:-1]).any() or (turned and (self.hashes[1:] == self.hashes[:-1]).any())
        equal = equal or np.isin(hashes, self.hashes[places[places < len(self)]]).any()
        whole = _in_order(joined, all_ids) if equal else Ledger(joined, all_ids)
        return replace(whole, as_integers=self.as_integers)

    def united(self, other: Ledger) -> Ledger:
        """Return this with the samples of another."""
        whole = self.with_samples(other.hashes, other.ids)
        return replace(whole, as_integers=self.as_integers or other.as_integers)

    def without(self, owner: str, hashes: Array, ids: Array | None, rows: Tensor | None) -> Ledger:
        """Return this without the samples of some hashes; where ids are given, those of just these ids.

        Args:
            owner: who is asked, named in the error.
            hashes: ``S16 [n]``, one for each time that a sample is to go.
            ids: ``[n]``, or None: any.
            rows: int64 ``[n]``, what rows the caller knows them by; None: 0, 1, ...

        Raises:
            ValueError: some are not there, or not so often; the rows are named.
        """
        left = np.searchsorted(self.hashes, hashes, "left")
        counts = np.searchsorted(self.hashes, hashes, "right") - left
        if ids is None:
            entries = left + _occurrences(hashes)
            held = entries < left + counts
        else:
            entries, held = self._entries_of(left, counts, ids)
        if not held.all():
            lost = np.nonzero(~held)[0]
            missing = (torch.from_numpy(lost) if rows is None else rows[torch.from_numpy(lost)]).unique()
            raise ValueError(_not_there(owner, missing, ids, lost))
        kept = np.ones(len(self), dtype=bool)
        kept[entries] = False
        if self.ids is None or len(self) == len(hashes):
            return Ledger(self.hashes[kept], None)
        return Ledger(self.hashes[kept], self.ids[kept], self.as_integers)

    def _entries_of(self, left: Array, counts: Array, ids: Array) -> tuple[Array, Array]:
        """Return, for each sample, an entry of its hash and id that no other has taken, and whether there is one."""
        entries, held = left.copy(), np.zeros(len(left), dtype=bool)
        if self.ids is None:
            return entries, held
        alike = _kind(self.ids) == _kind(ids)
        names = ids if alike else _as_texts(ids)
        taken: set[int] = set()
        for i, (begin, count) in enumerate(zip(left.tolist(), counts.tolist(), strict=True)):
            known = self.ids[begin : begin + count]
            known = known if alike else _as_texts(known)
            free = [(entry, one) for entry, one in enumerate(known.tolist(), begin) if entry not in taken]
            for name in self._spellings(names[i]):
                entry = next((entry for entry, one in free if one == name), None)
                if entry is not None:
                    taken.add(entry)
                    entries[i], held[i] = entry, True
                    break
        return entries, held

    def _spellings(self, name: Any) -> list[Any]:
        """Return what an id may be called here, first as it is written."""
        if self.as_integers and isinstance(name, str) and _INTEGER.fullmatch(name):
            return [name, str(int(name))]
        return [name]

    def shared_with(self, other: Ledger) -> Ledger:
        """Return the samples that both hold, with the ids that this one has for them."""
        left = np.searchsorted(other.hashes, self.hashes, "left")
        counts = np.searchsorted(other.hashes, self.hashes, "right") - left
        both = _occurrences(self.hashes) < counts
        return Ledger(self.hashes[both], None if self.ids is None else self.ids[both], self.as_integers)

    def repeated(self) -> tuple[int, int]:
        """Return how many samples there are besides those that differ, and how many ids."""
        samples = int((self.hashes[1:] == self.hashes[:-1]).sum())
        if self.ids is None:
            return samples, 0
        given = self.ids[self.ids != NO_ID[_kind(self.ids)]]
        if self.as_integers and given.dtype != np.int64:
            given = np.array([self._spellings(one)[-1] for one in given.tolist()], dtype=given.dtype)
        return samples, len(given) - len(np.unique(given))

    def in_use(self, ids: Array) -> int:
        """Return how many of the ids ``[n]`` of other samples are in use: here, or by one that stands before."""
        kind = _common_kind(self.ids, ids)
        if kind == "int" and self.ids is not None:
            given = np.unique(ids)
            return len(ids) - len(given) + len(np.unique(self.ids[np.isin(self.ids, given)]))
        alike = [self._spellings(one)[-1] for one in (_as_texts(ids) if kind == "str" else ids).tolist()]
        names = set(alike)
        known = [] if self.ids is None else _as_texts(self.ids).tolist()
        if self.as_integers:
            known = [self._spellings(one)[-1] for one in known]
        return len(alike) - len(names) + len(names.intersection(known))

    def shown(self) -> str:
        """Return the first samples for a message: by their ids where they have some."""
        names: list[str] = []
        for i in range(min(len(self), SHOWN)):
            one = None if self.ids is None else self.ids[i : i + 1].tolist()[0]  # Python's own
            known = one is not None and one not in NO_ID.values()
            digits = bytes(self.hashes[i]).ljust(HASH_BYTES, bytes(1)).hex()  # NumPy drops zeros at the end
            names.append(f"id {one!r}" if known else f"hash {digits}")
        return ", ".join(names) + (", …" if len(self) > SHOWN else "")


def hash_samples(inputs: Tensor, targets: Sequence[bytes]) -> Array:
    """Return the hash of each sample, ``S16 [N]``.

    Args:
        inputs: q + 64, uint8 ``[N, D]``.
        targets: what tells each sample's target from others.
    """
    content = np.ascontiguousarray(inputs.numpy())
    hashes = bytearray()
    for row, target in zip(content, targets, strict=True):
        one = hashlib.blake2b(row.data, digest_size=HASH_BYTES)
        one.update(target)
        hashes += one.digest()
    return np.frombuffer(bytes(hashes), dtype=f"S{HASH_BYTES}")


def read_ids(owner: str, ids: Any, n_samples: int) -> Array | None:
    """Return ids as int64 or an array of texts ``[N]``; raise, by row, unless they are; None where there are none."""
    if ids is None:
        return None
    if isinstance(ids, Tensor):
        array = ids.detach().cpu().numpy()
    else:  # NumPy would make texts of integers among texts
        array = ids if isinstance(ids, np.ndarray) else np.array(ids, dtype=object)
    if array.shape != (n_samples,):
        raise ValueError(f"{owner}: ids must be [N={n_samples}], got {list(array.shape)}")
    if not n_samples:
        return None
    if array.dtype.kind not in "iu":
        array = array.astype(object)
        types = [str if isinstance(one, str) else int if _is_int(one) else type(one) for one in array]
        wrong = next(
            (row for row, one in enumerate(types) if one is not types[0] or one not in (int, str)), None
        )
        if wrong is not None:
            raise ValueError(
                f"{owner}: ids must be all integers or all texts, got {types[wrong].__name__} in row {wrong}"
            )
    if not isinstance(array[0], str):
        limits = np.iinfo(np.int64)
        if not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise ValueError(f"{owner}: ids must fit in int64, got {int(array.min())} to {int(array.max())}")
    read = array if isinstance(array[0], str) else array.astype(np.int64)
    none = NO_ID[_kind(read)]
    if bool((read == none).any()):
        row = int(np.nonzero(read == none)[0][0])
        raise ValueError(f"{owner}: ids must not be {none!r}, which stands for no id, got it in row {row}")
    return read


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _kind(ids: Array) -> str:
    return "int" if ids.dtype == np.int64 else "str"


def _common_kind(known: Array | None, ids: Array | None) -> str | None:
    kinds = {_kind(one) for one in (known, ids) if one is not None}
    return max(kinds, default=None)  # "str" before "int"


def _as_texts(ids: Array) -> Array:
    """Return ids as they are written, what stands for none among texts too."""
    if _kind(ids) == "str":
        return ids
    none = NO_ID["int"]
    texts = [NO_ID["str"] if one == none else str(one) for one in ids.tolist()]
    return np.array(texts, dtype=object)


def _ids_of_kind(ids: Array | None, count: int, kind: str) -> Array:
    if ids is not None:
        return ids if kind == "int" else _as_texts(ids)
    return np.full(count, NO_ID[kind], dtype=np.int64 if kind == "int" else object)


def _in_order(hashes: Array, ids: Array) -> Ledger:
    """Return the ledger of samples in any order."""
    by_id = np.argsort(ids, kind="stable")
    order = by_id[np.argsort(hashes[by_id], kind="stable")]
    return Ledger(hashes[order], ids[order])


def _occurrences(hashes: Array) -> Array:
    """Return, for each hash, how many equal ones stand before it."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    first = np.searchsorted(ordered, ordered, "left")
    before = np.empty(len(hashes), dtype=np.int64)
    before[order] = np.arange(len(hashes)) - first
    return before


def _not_there(owner: str, rows: Tensor, ids: Array | None, lost: Array) -> str:
    listed = ", ".join(str(row) for row in rows[:SHOWN].tolist()) + (", …" if len(rows) > SHOWN else "")
    named = "" if ids is None else f" (id {ids[lost].tolist()[0]!r})"
    return (
        f"{owner}: the samples must be among those that were learnt, got {len(rows):,} that are not, or not so often, "
        f"in row{'s' * (len(rows) > 1)} {listed}{named}; nothing was taken out"
        + (
            ""
            if ids is None
            else "; samples that were learnt without ids, or under others, are named without"
        )
    )
