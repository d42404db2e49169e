"""The demo's last step: what sums over samples allow, and what an MLP does instead."""

import io
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from rich.console import Console

from glai_native.cli.demo import learn_forget_merge as step
from glai_native.cli.demo.figures import DemoSettings
from glai_native.cli.demo.picture import save_plot
from glai_native.cli.demo.report import print_report
from glai_native.cli.demo.steps import run_demo
from glai_native.cli.demo.trainer import Trainer
from glai_native.cli.main import main
from glai_native.data.labelled import load_data
from glai_native.machine.progress import epoch_progress

SETTINGS = DemoSettings(hidden=8, epochs=8)


def run(data, settings=SETTINGS):
    """The step alone; also how many steps its bar has counted, and how many it should have."""
    samples = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(settings.seed))
    with epoch_progress(False) as bar:
        task = bar.add_task("", total=step.n_steps(settings))
        figures = step.learn_forget_merge(
            data, samples, settings, Trainer(settings, len(samples), bar, task), 1e-2
        )
        assert bar.tasks[0].completed == bar.tasks[0].total
    return figures


def write_data(path, n_classes, n_features=6, n=150, labels=None):
    """Classes around centres that are well apart."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    x = rng.normal(size=(n, n_features)) + 4 * rng.normal(size=(n_classes, n_features))[y]
    np.savez(path, x=x.astype(np.float32), y=y if labels is None else np.array(labels)[y])
    return path


def printed(report):
    console = Console(file=io.StringIO(), width=80)
    print_report(report, console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def digits():
    return run(load_data(None))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return run_demo(load_data(None), tmp_path_factory.mktemp("demo"), SETTINGS, progress=False)


def test_changed_sums_are_those_of_training_anew(digits):
    for change in (digits.learn, digits.forget, digits.merge):
        assert change.digest == change.digest_anew
        assert change.glai.accuracy == change.anew.accuracy
        assert change.glai.accuracy > 0.9
    assert digits.forget.digest != digits.learn.digest == digits.merge.digest


def test_classes_that_come_later(digits):
    learn = digits.learn
    assert (digits.first_classes, digits.later_classes) == (list(range(8)), [8, 9])
    assert learn.samples == int((load_data(None).y_train >= 8).sum())
    assert learn.glai.first_accuracy == learn.anew.first_accuracy > 0.9
    assert min(learn.glai.first_accuracy_before, learn.mlp.first_accuracy_before) > 0.9
    # Fine-tuned on two classes alone, an MLP forgets others: how much is for the demo to show, that it does is known.
    assert learn.mlp.first_accuracy < learn.mlp.first_accuracy_before - 0.2
    assert learn.mlp.accuracy <= learn.mlp_in_hindsight < learn.glai.accuracy


def test_what_is_forgotten_and_merged(digits):
    assert digits.forget.samples == digits.samples // 10
    assert digits.merge.samples == digits.samples
    for change in (digits.forget, digits.merge):
        assert change.glai.first_accuracy is None
        assert change.mlp.accuracy > 0.5


def test_nothing_of_the_later_classes_reaches_structure_and_penalty():
    data = load_data(None)
    later = data.y_train >= 8
    data.x_train[later] = data.x_train[later].flip(1)
    changed, figures = run(data), run(load_data(None))
    assert changed.l2 == figures.l2
    assert changed.learn.glai.first_accuracy_before == figures.learn.glai.first_accuracy_before


def test_the_same_seed_gives_the_same_figures(digits):
    def without_seconds(figures):
        if isinstance(figures, dict):
            return {name: without_seconds(value) for name, value in figures.items() if "seconds" not in name}
        return figures

    assert without_seconds(asdict(run(load_data(None)))) == without_seconds(asdict(digits))


@pytest.mark.parametrize(("n_classes", "n_later"), [(3, 1), (11, 2)])
def test_the_last_fifth_of_the_classes_comes_later(tmp_path, n_classes, n_later):
    figures = run(load_data(write_data(tmp_path / "d.npz", n_classes)))
    assert len(figures.later_classes) == n_later
    assert figures.learn.digest == figures.learn.digest_anew


def test_memory_and_time_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "SAMPLES", 100)
    data = load_data(write_data(tmp_path / "d.npz", 4, n_features=step.COMPONENTS + 6, n=200))
    figures = run(data, DemoSettings(hidden=500, epochs=1))
    assert (figures.samples, figures.features) == (100, step.COMPONENTS + 6)
    assert figures.unknowns == step.UNITS + figures.features + 1
    assert figures.merge.digest == figures.merge.digest_anew


@pytest.mark.parametrize(
    ("n_classes", "n", "sentence"),
    [(2, 60, "takes 3 classes at least, the data have 2."), (3, 16, "5 training samples at least")],
)
def test_later_classes_are_left_out_where_there_are_none(tmp_path, n_classes, n, sentence):
    data = load_data(write_data(tmp_path / "d.npz", n_classes, n=n))
    report = run_demo(data, tmp_path / "out", DemoSettings(hidden=4, epochs=1), progress=False)
    figures = report.learn_forget_merge
    assert figures.learn is None
    assert sentence in figures.left_out
    assert figures.left_out in " ".join(printed(report).split())
    assert all(change.digest == change.digest_anew for change in (figures.forget, figures.merge))
    save_plot(report, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_has_a_row_for_each_side(report):
    text = printed(report)
    for row in (
        "GLAI, later ones added",
        "GLAI, all 10 at once",
        "MLP, fine-tuned on them",
        "GLAI, taken out",
        "GLAI, without them",
        "MLP, without them",
        "GLAI, five sums added",
        "GLAI, all in one place",
        "MLP, five averaged",
    ):
        assert row in text
    flowing = " ".join(text.split())
    for sentence in (
        "classes 8, 9 come when the samples of the first 8 are gone",
        "MLP has to start again",
        "equal digests are equal bits",
    ):
        assert sentence in flowing
    assert text.index("Models") < text.index("Learn, forget, merge")
    assert max(map(len, text.splitlines())) <= 80


def test_labels_are_printed_as_they_are(tmp_path, capsys):
    path = write_data(tmp_path / "d.npz", 3, labels=["A", "B", "[red]"])
    options = ["--data", str(path), "--out", str(tmp_path / "out"), "--epochs", "1", "--hidden", "4"]
    assert main(["demo", *options]) == 0
    assert "class [red] comes when" in " ".join(capsys.readouterr().out.split())


def test_figures_are_in_the_json(report):
    figures = json.loads(report.to_json())["learn_forget_merge"]
    for change in ("learn", "forget", "merge"):
        assert {"samples", "digest", "digest_anew", "glai", "anew", "mlp"} <= figures[change].keys()
        for side in ("glai", "anew", "mlp"):
            assert {"accuracy", "seconds"} <= figures[change][side].keys()


def test_the_second_panel_is_drawn(report, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    save_plot(report, tmp_path / "demo.png")
    panel = drawn[0].axes[1]
    assert panel.get_title().startswith("Learn, forget, merge")
    texts = [text.get_text() for text in panel.texts]
    figures = report.learn_forget_merge
    for change in (figures.learn, figures.forget, figures.merge):
        assert "same digest" in texts
        assert f"{100 * change.mlp.accuracy:.1f}" in texts
    assert f"{100 * figures.learn.mlp_in_hindsight:.1f}" in texts
