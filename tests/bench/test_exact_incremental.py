"""The class-incremental and the federated comparison on digits: what is measured, kept, and written as a page."""

import json

import pytest

from glai_bench.exact import federated, incremental
from glai_bench.exact.report import markdown


@pytest.mark.usefixtures("threads")  # main sets torch's number of them
def test_cells_are_measured_once_and_the_page_is_made_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GLAI_DATA", str(tmp_path))
    output = tmp_path / "exact.json"
    monkeypatch.setattr(federated, "ROUNDS", 1)  # of FedAvg, whose accuracy is no matter here
    arguments = ["--seeds", "1", "--output", str(output)]
    federated.main(["--data", "digits", *arguments])
    cells = json.loads(output.read_text())["cells"]
    assert cells["digits/federated/exact/seed=0"]["result"]["same_digest"]
    assert cells["digits/federated/AFL/seed=0"]["result"]["accuracy"] > 0.8

    only = "/(ours|RanPAC|streaming LDA)/|one-class|forgetting|first task|default"
    for _ in range(2):  # the second time nothing is left to do
        incremental.main(["--data", "digits", "--sections", "accuracy", "one-class", "structure", "forgetting",
                          "--only", only, *arguments])  # fmt: skip
    assert capsys.readouterr().err.count("one-class") == 1
    results = json.loads(output.read_text())
    found = {key: cell["result"] for key, cell in results["cells"].items()}
    one_class = found["digits/one-class/300/seed=0"]
    assert one_class["digest"] == one_class["joint_digest"]
    assert found["digits/forgetting/300"]["same_digest"]
    assert found["digits/accuracy/300/ours/seed=0"]["accuracy"] > 0.95
    page = output.with_suffix(".md").read_text()
    assert page == markdown(results)
    for heading in ("Accuracy after the last task", "One class a task", "Forgetting", "Federated"):
        assert f"## {heading}" in page
    assert f"{100 * one_class['accuracy']:.2f}" in page


def test_data_that_are_not_there_are_refused(monkeypatch, capsys):
    monkeypatch.delenv("GLAI_DATA", raising=False)
    with pytest.raises(SystemExit):
        incremental.main(["--data", "mnist"])
    assert "GLAI_DATA" in capsys.readouterr().err
