"""A bit that flips in a file of any format is noticed, or nothing that is read depends on it.

``python -m fuzz.test_files_flips 10000``, in ``tests``, flips ten thousand, and counts.
"""

import collections
import random
import sys
import tempfile
from pathlib import Path

import pytest

from fuzz.file_formats import Format, formats, outcome


def flip(rng: random.Random, form: Format) -> tuple[str, bytes]:
    """Returns the name of one of the format's files and its content but for a bit, of the header every other time."""
    name = rng.choice(sorted(form.files))
    content = bytearray(form.files[name])
    end = len(content)
    if rng.random() < 0.5 and name.endswith(".safetensors"):
        end = 8 + int.from_bytes(content[:8], "little")
    place = rng.randrange(end)
    content[place] ^= 1 << rng.randrange(8)
    return name, bytes(content)


def flips(folder: Path, n: int, seed: int) -> collections.Counter:
    """Flips n bits, one at a time; raises at the first that is neither refused nor without effect."""
    (folder / "made").mkdir()
    (folder / "read").mkdir()
    forms, rng, counts = formats(folder / "made"), random.Random(seed), collections.Counter()
    whole = {}
    for form in forms:
        form.write(folder / "read")
        kind, whole[form.name] = outcome(form, folder / "read")
        assert kind == "read", (form.name, whole[form.name])
    for _ in range(n):
        form = rng.choice(forms)
        form.write(folder / "read")
        name, content = flip(rng, form)
        (folder / "read" / name).write_bytes(content)
        kind, found = outcome(form, folder / "read")
        if kind == "read":
            assert found == whole[form.name], f"a flipped bit of {name} of {form.name} went unnoticed"
        counts[form.name, kind] += 1
    return counts


def test_some_flips(tmp_path):
    counts = flips(tmp_path, 400, seed=1)
    assert counts.total() == 400
    assert sum(n for (_, kind), n in counts.items() if kind == "refused") > 300


@pytest.mark.slow
def test_ten_thousand_flips(tmp_path):
    flips(tmp_path, 10_000, seed=2)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for (name, kind), n in sorted(flips(Path(folder), int(sys.argv[1]), seed=3).items()):
            print(f"{name:20} {kind:8} {n:6}")
