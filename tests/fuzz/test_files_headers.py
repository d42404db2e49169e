"""Whatever stands in a file's header, reading it gives one sentence, or what a file of such a header says.

``GLAI_HEADERS=100000 pytest -n 0 tests/fuzz/test_files_headers.py`` takes a hundred thousand.
"""

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz.file_formats import Format, formats, header_of, outcome, signed, with_header
from glai_native.machine.files import CHECKSUM

HEADERS = int(os.environ.get("GLAI_HEADERS", "300"))

ODD = [
    "",
    "0",
    "-1",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "NaN",
    "null",
    "true",
    "[]",
    "{}",
    "[[1]]",
    '"x"',
    "٣",
    "x\ny",
]
SHORT = len(ODD)
ODD += [str(2**70), str(-(2**63)), str(2**63 - 1), "9" * 5000, "[" * 100_000, "[" * 100_000 + "]" * 100_000]
ODD += ['{"a":' * 100_000, "[NaN]", "[Infinity, 1]", "[1e999]", f"[{2**70}]", "[null, null]", "[0]", "[1]"]
ODD += ['["\\ud800"]', '["a", "a"]', "[1e300, -1e300]", '{"l2": -1}', '{"mean_diagonal": NaN}']
NUMBERS = st.one_of(st.integers(-3, 9), st.integers(), st.floats())
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
ENTRIES = st.one_of(st.sampled_from(ODD), JSON.map(lambda value: json.dumps(value)), st.text(max_size=9))
DTYPES = [
    "F16",
    "BF16",
    "F32",
    "F64",
    "I8",
    "U8",
    "I16",
    "I32",
    "I64",
    "U64",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
    "F4",
    "X",
]
OFFSETS = st.lists(st.one_of(st.integers(-2, 400), st.integers(0, 2**64)), min_size=0, max_size=3)
SHAPES = st.lists(st.one_of(st.integers(-1, 9), st.integers(0, 2**65)), max_size=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("headers")
    (folder / "made").mkdir()
    (folder / "read").mkdir()
    forms, whole = formats(folder / "made"), {}
    for form in forms:
        form.write(folder / "read")
        whole[form.name] = outcome(form, folder / "read")
        assert whole[form.name][0] == "read"
    return forms, folder / "read", whole


def change_metadata(data: st.DataObject, header: dict[str, Any]) -> None:
    """Changes, drops, adds or renames an entry of the metadata, parts of its JSON included."""
    metadata = header["__metadata__"]
    name = data.draw(st.sampled_from(sorted(set(metadata) - {CHECKSUM})))
    how = data.draw(st.sampled_from(["odd", "odd", "part", "drop", "swap", "add", "kind"]))
    if how == "odd":
        metadata[name] = data.draw(ENTRIES)
    elif how == "part":  # a piece of the text that is there
        text, piece = str(metadata[name]), data.draw(st.sampled_from(ODD[:SHORT]))
        place = data.draw(st.integers(0, len(text)))
        metadata[name] = text[:place] + piece + text[place + data.draw(st.integers(0, 3)) :]
    elif how == "drop":
        del metadata[name]
    elif how == "swap":
        other = data.draw(st.sampled_from(sorted(metadata)))
        metadata[name], metadata[other] = metadata[other], metadata[name]
    elif how == "add":
        metadata[data.draw(st.text(max_size=5))] = data.draw(ENTRIES)
    else:  # metadata that are no texts
        metadata[name] = data.draw(JSON)


def change_tensors(data: st.DataObject, header: dict[str, Any]) -> None:
    """Changes type, shape or place of a tensor, drops it, or gives it another's name."""
    names = sorted(set(header) - {"__metadata__"})
    if not names:
        return
    name = data.draw(st.sampled_from(names))
    kinds = ["dtype", "shape", "turn", "offsets", "drop", "rename", "any"]
    if not (isinstance(header[name], dict) and "shape" in header[name]):  # changed before
        kinds = ["drop", "any"]
    how = data.draw(st.sampled_from(kinds))
    if how == "dtype":
        header[name]["dtype"] = data.draw(st.sampled_from(DTYPES))
    elif how == "shape":
        header[name]["shape"] = data.draw(SHAPES)
    elif how == "turn":  # as many numbers, otherwise arranged
        shape = header[name]["shape"]
        header[name]["shape"] = data.draw(
            st.sampled_from([shape[::-1], [*shape, 1], [1, *shape], shape[1:] or [1]])
        )
    elif how == "offsets":
        header[name]["data_offsets"] = data.draw(OFFSETS)
    elif how == "drop":
        del header[name]
    elif how == "rename":
        header[data.draw(st.sampled_from([*names, "x", "", "kept_paths", "directions"]))] = header.pop(name)
    else:
        header[name] = data.draw(JSON)


def change_bytes(data: st.DataObject, content: bytes) -> bytes:
    """Changes bytes of the header, its length, or where the file ends."""
    size = int.from_bytes(content[:8], "little")
    how = data.draw(st.sampled_from(["byte", "length", "cut", "more", "none", "text"]))
    if how == "byte":
        place = data.draw(st.integers(0, 8 + size - 1))
        piece = data.draw(st.binary(min_size=1, max_size=4))
        return content[:place] + piece + content[place + len(piece) :]
    if how == "length":
        length = data.draw(st.one_of(st.integers(0, 2**64 - 1), st.integers(max(size - 9, 0), size + 9)))
        return length.to_bytes(8, "little") + content[8:]
    if how == "cut":
        return content[: data.draw(st.integers(0, len(content)))]
    if how == "more":
        return content + data.draw(st.binary(min_size=1, max_size=9))
    if how == "none":
        header, payload = header_of(content)
        del header["__metadata__"]
        return with_header(header, payload)
    text = data.draw(st.one_of(st.sampled_from(ODD), JSON.map(lambda value: json.dumps(value))))
    return with_header(text.encode("utf-8", "surrogatepass"), header_of(content)[1])


@pytest.mark.timeout(0)
@settings(
    max_examples=HEADERS,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_headers(made, data):
    forms, folder, whole = made
    form: Format = forms[data.draw(st.integers(0, len(forms) - 1))]
    form.write(folder)
    name = data.draw(st.sampled_from(sorted(n for n in form.files if n.endswith(".safetensors"))))
    content, is_signed = form.files[name], False
    if data.draw(st.integers(0, 3)) == 0:
        content = change_bytes(data, content)
    else:
        header, payload = header_of(content)
        for _ in range(data.draw(st.integers(1, 2))):
            data.draw(st.sampled_from([change_metadata, change_metadata, change_tensors]))(data, header)
        is_signed = data.draw(st.integers(0, 3)) > 0
        content = (signed if is_signed else with_header)(header, payload)
    (folder / name).write_bytes(content)
    found = outcome(form, folder)
    if found[0] == "read" and not is_signed:
        assert found == whole[form.name], f"{name} of {form.name} was changed, and that went unnoticed"
