"""A training that may be killed keeps what it has come to, stage by stage: its structure, then the loop's epochs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch

from glai_native.machine.writing import find_file, remove_leftovers, write_files
from glai_native.structure.selector import STRUCTURE_FILE, PathSelector

SETTINGS_FILE, OUTPUT_FILE, LOOP_FILE = "settings.json", "output.safetensors", "loop.safetensors"
UNTRAINED_LOOP_FILE = "untrained-loop.safetensors"


class Stages:
    """What a training has come to, in a folder.

    Args:
        folder: of its files; is made.
        settings: plain values of all that decides the numbers.
        is_first: whether this process is the one that writes there.

    Raises:
        ValueError: what is there was begun with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], is_first: bool = True) -> None:
        self._folder = folder
        if not is_first:
            return
        folder.mkdir(exist_ok=True)
        path, text = folder / SETTINGS_FILE, json.dumps(settings, sort_keys=True, default=str)
        if find_file(path) is None:
            write_files({path: text.encode()})
        begun, given = json.loads(path.read_text()), json.loads(text)
        other = [name for name in sorted({*begun, *given}) if begun.get(name) != given.get(name)]
        if other:
            raise ValueError(
                f"{folder}: was begun with other settings ({', '.join(other)}); give those again, or remove the folder "
                "to begin anew"
            )

    def selector(self, make: Callable[[], PathSelector]) -> PathSelector:
        """Return the structure, with its output layer; it is made where it has not been yet."""
        structure, output = self._folder / STRUCTURE_FILE, self._folder / OUTPUT_FILE
        if find_file(structure) is None:
            made = make()
            layer = dict(zip(("weight", "bias"), made.output or (), strict=False))
            write_files({structure: made.to_bytes(), output: safetensors.torch.save(layer)})
            return made
        selector = PathSelector.load(structure)
        for name, tensor in safetensors.torch.load(output.read_bytes()).items():
            setattr(selector, f"output_{name}", tensor)
        return selector

    @property
    def loop(self) -> Path:
        """The native loop's checkpoint."""
        return self._folder / LOOP_FILE

    @property
    def untrained_loop(self) -> Path:
        """The checkpoint of the native loop over gates that were never trained."""
        return self._folder / UNTRAINED_LOOP_FILE

    @staticmethod
    def are_in(folder: Path) -> bool:
        """Return whether a training has kept something in a folder."""
        return find_file(folder / SETTINGS_FILE) is not None

    def remove(self) -> None:
        """Remove the files, and the folder unless it holds others: the training has ended."""
        names = [SETTINGS_FILE, STRUCTURE_FILE, OUTPUT_FILE, LOOP_FILE, UNTRAINED_LOOP_FILE]
        remove_leftovers(self._folder, names)
        for name in names:
            (self._folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self._folder.rmdir()
