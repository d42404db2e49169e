"""Tensors and metadata in safetensors files, under one checksum, which are validated whenever they are read."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from glai_native.machine.writing import find_file, read_whole

CHECKSUM = "checksum"
MOST = (1 << 63) - 1  # what an int64 holds


def tensors_to_bytes(state: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file's content from the tensors of a ``state_dict``; its extra state is left out.

    The metadata, of which ``version`` must be the format's newest, get ``checksum``: the CRC-32 of metadata, names,
    types and shapes, and of the tensors' bytes in the order of their names.
    """
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return _in_order(save(host, dict(metadata) | {CHECKSUM: _checksum(metadata, host)}))


def stated_checksum(content: bytes) -> str:
    """Return the checksum that :func:`tensors_to_bytes` has put into a file's content."""
    begin = 8 + int.from_bytes(content[:8], "little")
    return str(json.loads(content[8:begin])["__metadata__"][CHECKSUM])


def _in_order(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file, so that equal models are equal bytes: the library shuffles them."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(content)[begin:]])


def hash_values(header: Any, tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of a header and of the tensors' shapes and values, as float64."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for tensor in tensors:
        digest.update(json.dumps(list(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().to(torch.float64).contiguous().numpy().astype("<f8").tobytes())
    return digest.hexdigest()


def crc32(values: Tensor, before: int = 0) -> int:
    """Return the CRC-32 of a tensor's bytes, going on from that of what came before."""
    return zlib.crc32(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data, before)


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    kinds = [(name, tensor.dtype, list(tensor.shape)) for name, tensor in sorted(tensors.items())]
    return checksum_of(metadata, kinds, (tensors[name] for name in sorted(tensors)))


def checksum_of(
    metadata: Mapping[str, str], kinds: Iterable[tuple[str, torch.dtype, list[int]]], parts: Iterable[Tensor]
) -> str:
    """Return the CRC-32 of a file: of metadata, of each tensor's name, type and shape, and of their bytes, by name."""
    entries = sorted(item for item in metadata.items() if item[0] != CHECKSUM)
    listed = [[name, str(dtype), shape] for name, dtype, shape in kinds]
    crc = zlib.crc32(json.dumps([entries, listed]).encode())
    for part in parts:
        crc = crc32(part, crc) if part.numel() else crc
    return str(crc)


def _tensors_crc32(tensors: Mapping[str, Tensor], before: int = 0) -> int:
    for name in sorted(tensors):
        if tensors[name].numel():
            before = crc32(tensors[name], before)
    return before


def parse_json(text: str) -> Any:
    """Parse JSON of finite numbers, for :meth:`TensorFile.entry`."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(text: str) -> float:
    raise ValueError(f"no number: {text}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"no finite number: {text}")
    return number


def is_integer(value: object, least: int = 0, most: int = MOST) -> bool:
    """Return whether what JSON held is an integer (no bool) of that range."""
    return type(value) is int and least <= value <= most


def is_number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    """Return whether what JSON held is a finite number (no bool) of that range."""
    if type(value) not in (int, float):
        return False
    try:
        return math.isfinite(value) and least <= value <= most  # type: ignore[arg-type, operator]
    except OverflowError:  # an int beyond all floats
        return False


class TensorFile:
    """A safetensors file of one of our formats, opened and checked; tensors are read as memory maps.

    Args:
        path: the file.
        file_format: what ``metadata["format"]`` must say.
        newest: the version must be an integer from 1 to this.
        whole_from: the first version with a checksum over all that it holds, those before have one over the tensors
            alone; None: the newest.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is damaged, or of another format or version.
    """

    def __init__(self, path: Path, file_format: str, newest: int, whole_from: int | None = None) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        # The library opens the file twice, and another may have taken its name in between.
        tensors = read_whole(path.parent, lambda: self._open(file_format), of=path.name)
        stated = self.metadata.get("format")
        if stated != file_format:
            raise ValueError(f"{path}: format must be '{file_format}', got {shown(stated)}")
        version = self.metadata.get("version")
        versions = [str(number) for number in range(1, newest + 1)]
        if version not in versions:
            raise ValueError(
                f"{path}: format version must be {' or '.join(versions)}, got {shown(version)}; "
                "a newer glai_native wrote it"
            )
        is_whole = int(version) >= (whole_from or newest)
        if is_whole:
            stated, right = self.entry(CHECKSUM), _checksum(self.metadata, tensors)
        else:
            stated, right = self.entry("crc32"), str(_tensors_crc32(tensors))
        if stated != right:
            what = "tensors and metadata" if is_whole else "the tensors"
            raise ValueError(f"{path}: the checksum of {what} does not match, the file is damaged")

    def _open(self, file_format: str) -> dict[str, Tensor]:
        """Open what has the name now, and return its tensors."""
        path, found = self.path, find_file(self.path)
        if found is None:
            raise FileNotFoundError(f"{path}: there is no such file, a {file_format} file was expected here")
        _require_readable(path, found)
        try:
            self._file = safetensors.safe_open(found, framework="pt")
            self.metadata = self._file.metadata() or {}
            self._names = set(self._file.keys())
            return {name: self._file.get_tensor(name) for name in self._names}
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        except Exception as error:  # the library's and torch's own, of many types
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: truncated or not a safetensors file ({reason})") from None

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def entry(self, name: str, parse: Callable[[str], Any] = str) -> Any:
        """Return a required metadata entry, parsed; ``parse`` raises ValueError where it cannot be."""
        if name not in self.metadata:
            raise ValueError(f"{self.path}: metadata entry '{name}' is missing")
        text = self.metadata[name]
        try:
            return parse(text)
        except (ValueError, OverflowError):
            raise ValueError(
                f"{self.path}: metadata entry '{name}' cannot be read, got {shown(text)}"
            ) from None

    def json(self, name: str) -> Any:
        """Return a required metadata entry that is JSON of finite numbers."""
        return self.entry(name, parse_json)

    def integer(self, name: str, least: int = 0, most: int = MOST) -> int:
        """Return a required metadata entry that is an integer of that range."""
        number = int(self.entry(name, int))
        if not least <= number <= most:
            limits = f">= {least}" if most == MOST else f"from {least} to {most}"
            raise ValueError(
                f"{self.path}: metadata entry '{name}' must be an integer {limits}, got {shown(number)}"
            )
        return number

    def sha256(self, name: str) -> str:
        """Return a required metadata entry that is an id, or an empty text where there is none."""
        stated = str(self.entry(name))
        self.require(name, re.fullmatch("([0-9a-f]{64})?", stated) is not None, "64 hexadecimal digits")
        return stated

    def require(self, name: str, holds: bool, what: str) -> None:
        """Raise, naming a metadata entry and what it must be, unless that holds."""
        if not holds:
            raise ValueError(
                f"{self.path}: metadata entry '{name}' must be {what}, got {shown(self.metadata.get(name))}"
            )

    def sizes(self, name: str) -> list[int]:
        """Return a required metadata entry that lists sizes >= 1 as JSON."""
        sizes = self.json(name)
        if not isinstance(sizes, list) or not sizes or not all(is_integer(size, 1) for size in sizes):
            raise ValueError(f"{self.path}: metadata entry '{name}' must list sizes >= 1, got {shown(sizes)}")
        return sizes

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return all tensors whose names begin with ``prefix``, by what follows it."""
        found = {name for name in self._names if name.startswith(prefix)}
        return {name[len(prefix) :]: self._file.get_tensor(name) for name in sorted(found)}

    def tensor(self, name: str, dtypes: tuple[torch.dtype, ...], shape: tuple[int | None, ...]) -> Tensor:
        """Return a required tensor of one of ``dtypes``; None in ``shape`` is any size."""
        if name not in self._names:
            raise ValueError(f"{self.path}: tensor '{name}' is missing")
        tensor: Tensor = self._file.get_tensor(name)
        fits = len(tensor.shape) == len(shape) and all(
            want is None or want == got for want, got in zip(shape, tensor.shape, strict=True)
        )
        if tensor.dtype not in dtypes or not fits:
            kinds = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(
                f"{self.path}: tensor '{name}' must be {kinds} [{sizes}], "
                f"got {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            )
        # A header of any length may lie before the numbers of a mapped file; kernels read whole numbers.
        return tensor if tensor.data_ptr() % tensor.itemsize == 0 else tensor.clone()


def _require_readable(path: Path, found: Path) -> None:
    """Raise what the system says: the library calls whatever it cannot open a file that is not there."""
    try:
        os.close(os.open(found, os.O_RDONLY))
        if found.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def shown(value: object) -> str:
    """Return a value for a message of one line, whatever a damaged file holds."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
