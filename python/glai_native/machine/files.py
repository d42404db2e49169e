"""This module keeps files whole or absent: safetensors are written aside, synced, renamed, and validated when read."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor


def make_folder(owner: str, folder: str | os.PathLike[str]) -> Path:
    """Return the folder, made with those above it where it is not there.

    Raises:
        OSError: of the system's kind, with one sentence that names the folder: it is a file, or cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        found = "a file is there" if folder.is_file() else error.strerror
        raise type(error)(
            f"{owner}: {folder} must be a folder, or a place where one can be made, got: {found}"
        ) from None
    return folder


def write_files(contents: Mapping[Path, bytes], *, exclusive: bool = False) -> None:
    """Write files of one folder so that each holds either what it held before or all of its new content.

    All are written aside and synced before the first takes its name: a full disk changes none of them, and a kill
    can only fall between two renames.

    Args:
        contents: final names, in the order they appear; the folder must exist.
        exclusive: refuse, instead of replacing, a file that has come into being meanwhile.
    """
    folder = next(iter(contents)).parent
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            # A name of its own: writers of the same file, threads included, must not share what they stage.
            staged[path] = folder / f".{path.name}.{uuid.uuid4().hex}.tmp"
            with open(staged[path], "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in staged.items():
            if exclusive:
                os.link(temporary, path)
            else:
                os.replace(temporary, path)
    except FileExistsError as error:
        raise ValueError(
            f"{error.filename2}: another writer has just made this file, open the folder again"
        ) from None
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def tensors_to_bytes(state: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file's content from the tensors of a ``state_dict``; its extra state is left out.

    The metadata gets ``crc32``, over the tensors' bytes in the order of their names.
    """
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return _in_order(save(host, dict(metadata) | {"crc32": str(_checksum(host))}))


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


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    checksum = 0
    for name in sorted(tensors):
        if tensors[name].numel():
            checksum = crc32(tensors[name], checksum)
    return checksum


class TensorFile:
    """A safetensors file of one of our formats, opened and checked; tensors are read as memory maps.

    Args:
        path: the file.
        file_format: what ``metadata["format"]`` must say.
        newest: the version must be an integer from 1 to this.
    """

    def __init__(self, path: Path, file_format: str, newest: int = 1) -> None:
        self.path = path
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file, a {file_format} file was expected here")
        try:
            self._file = safetensors.safe_open(path, framework="pt")
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path}: truncated or not a safetensors file ({error})") from None
        self.metadata: dict[str, str] = self._file.metadata() or {}
        self._names = set(self._file.keys())
        found = self.metadata.get("format")
        if found != file_format:
            raise ValueError(f"{path}: format must be '{file_format}', got {found!r}")
        versions = [str(version) for version in range(1, newest + 1)]
        if self.metadata.get("version") not in versions:
            raise ValueError(
                f"{path}: format version must be {' or '.join(versions)}, got {self.metadata.get('version')!r}; "
                "a newer glai_native wrote it"
            )
        tensors = {name: self._file.get_tensor(name) for name in self._names}
        if _checksum(tensors) != self.entry("crc32", int):
            raise ValueError(f"{path}: the checksum of the tensors does not match, the file is damaged")

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def entry(self, name: str, parse: Callable[[str], Any] = str) -> Any:
        """Return a required metadata entry, parsed."""
        try:
            return parse(self.metadata[name])
        except KeyError:
            raise ValueError(f"{self.path}: metadata entry '{name}' is missing") from None
        except ValueError:
            raise ValueError(
                f"{self.path}: metadata entry '{name}' cannot be read, got {self.metadata[name]!r}"
            ) from None

    def sizes(self, name: str) -> list[int]:
        """Return a required metadata entry that lists sizes >= 1 as JSON."""
        sizes = self.entry(name, json.loads)
        if (
            not isinstance(sizes, list)
            or not sizes
            or any(type(size) is not int or size < 1 for size in sizes)
        ):
            raise ValueError(f"{self.path}: metadata entry '{name}' must list sizes >= 1, got {sizes!r}")
        return sizes

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
        return tensor
