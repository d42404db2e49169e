"""README's examples run as they stand."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "my-model" / "estimator.safetensors").exists()
    assert names["glai"].GLAI.load(tmp_path / "my-model")(names["x"]).shape == (2000, 3)


def test_both_commands_pin_with_the_constraints_file():
    text = README.read_text()
    for name in ("demo", "test"):
        command = re.search(rf"<!-- {name} command -->\n```sh\n(.*?)\n```", text, re.DOTALL).group(1)
        assert "PIP_CONSTRAINT=.ci/constraints.txt PIP_BUILD_CONSTRAINT=.ci/constraints.txt" in command
