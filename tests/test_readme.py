"""The documents: their examples run as they stand, what they name exists, and README stays one page."""

import re
import shlex
from pathlib import Path

import pytest

from glai_native.cli.main import _parser

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
README_BYTES = 12_000
ROOMS = ("training", "model", "federated", "cli")
DOCUMENTS = (
    "README.md",
    "csrc/README.md",
    "tests/simt/README.md",
    "bench/README.md",
    *(f"python/glai_native/{room}/README.md" for room in ROOMS),
)
# What a document's blocks must have left behind, by the names that they use.
LEFT_BEHIND = {
    "README.md": "glai.GLAI.load('my-model')(torch.randn(5, 20)).shape == (5, 3)",
    "python/glai_native/training/README.md": "len(model.classes_) == 10 and statistics.n_samples == 900",
    "python/glai_native/model/README.md": "merged.statistics.n_samples == 1797",
}
# A word in backquotes that starts with one of these, and is no pattern, is a path from the root.
FOLDERS = (".ci/", "bench/", "csrc/", "python/", "tests/")


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def quoted(document: str) -> list[str]:
    """What stands in single backquotes, outside of blocks."""
    text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("document", LEFT_BEHIND)
def test_examples(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(document, "python")):
        exec(compile(block, f"{document}, block {number}", "exec"), names)
    assert eval(LEFT_BEHIND[document], names)


def test_every_document_with_examples_is_run():
    assert {name for name in DOCUMENTS if blocks(name, "python")} == set(LEFT_BEHIND)


def test_readme_is_one_page():
    assert len(README.read_bytes()) <= README_BYTES


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_and_links_exist(document):
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    missing = [link for link in links if not ((ROOT / document).parent / link).exists()]
    for word in quoted(document):
        name = word.split()[0]
        if name.startswith(FOLDERS) and not re.search(r"[*{<…]", name) and not (ROOT / name).exists():
            missing.append(name)
    assert not missing, f"{document} names what is not there: {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_that_are_run_exist(document):
    missing = []
    for name in re.findall(r"python -m (glai_bench[\w.]*)", (ROOT / document).read_text()):
        module = ROOT / "bench" / name.removesuffix(".").replace(".", "/")
        if not (module.with_suffix(".py").exists() or (module / "__main__.py").exists()):
            missing.append(name)
    assert not missing, f"{document} runs what is not there: {missing}"


@pytest.mark.usefixtures("further_commands")
@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_are_taken(document):
    lines = [line.strip() for block in blocks(document, "sh") for line in block.splitlines()]
    for line in lines:
        if line.startswith("glai "):
            words = shlex.split(line, comments=True)[1:]
            _parser(words).parse_args(words)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_figure_is_left_open(document):
    assert "FIXME" not in (ROOT / document).read_text()


def test_both_commands_pin_with_the_constraints_file():
    text = README.read_text()
    for name in ("demo", "test"):
        command = re.search(rf"<!-- {name} command -->\n```sh\n(.*?)\n```", text, re.DOTALL).group(1)
        assert "PIP_CONSTRAINT=.ci/constraints.txt PIP_BUILD_CONSTRAINT=.ci/constraints.txt" in command
