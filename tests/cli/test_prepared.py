"""A table with categories and gaps goes through every command as it is; what its model knows stays with it."""

import json
import shutil

import numpy as np
import pytest

import glai_native as glai
from glai_native.cli.main import main
from glai_native.data.preparing.preparation import Preparation

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

SMALL = ("--hidden", 4, "--structure-epochs", 2)
KINDS = {
    "dual": ("--label", "kind", *SMALL, "--solver", "dual"),
    "statistics": ("--label", "kind", *SMALL, "--solver", "statistics"),
    "exact": ("--label", "kind", "--exact", "--units", 8),
    "sgd regressor": ("--label", "price", *SMALL, "--solver", "sgd", "--epochs", 60, "--learning-rate", 0.05),
    "statistics regressor": ("--label", "price", *SMALL, "--solver", "statistics"),
    "exact regressor": ("--label", "price", "--exact", "--units", 8),
}
WITHOUT_SUMS = ("dual", "sgd regressor")


def make_frame(seed, n=120):
    rng = np.random.default_rng(seed)
    town = rng.choice(["Gent", "Oslo", "Vigo"], n)
    frame = pandas.DataFrame(
        {"zip": rng.integers(1, 4, n) * 1000, "town": town, "area": rng.normal(100, 30, n)}
    )
    price = 2 * frame["area"] + 90 * (town == "Oslo") + 0.01 * frame["zip"]
    frame.loc[::9, "area"] = np.nan
    frame.loc[::11, "town"] = None
    rows = [f"s{seed}-{i}" for i in range(n)]
    return frame.assign(id=rows, price=price, kind=np.where(price > 225, "dear", "cheap"))


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(one) for one in (*arguments, "--json")])
    output = capsys.readouterr()
    assert status == 0, output.err
    return json.loads(output.out)


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([str(one) for one in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    shelf = tmp_path_factory.mktemp("prepared")
    frame = make_frame(0)
    frame.to_csv(shelf / "data.csv", index=False)
    frame.iloc[:40].to_csv(shelf / "some.csv", index=False)
    frame.drop(columns="kind").to_csv(shelf / "price.csv", index=False)
    frame.drop(columns="price").to_csv(shelf / "kind.csv", index=False)
    for kind, told in KINDS.items():
        data = shelf / ("price.csv" if "price" in told else "kind.csv")
        arguments = ["train", data, "--out", shelf / kind, "--categories", "zip", "--json", *told]
        assert main([str(one) for one in arguments]) == 0
    return shelf


@pytest.mark.parametrize("kind", KINDS)
def test_predict_evaluate_inspect(shelf, tmp_path, kind, capsys):
    figures = run(capsys, "evaluate", shelf / kind, shelf / "data.csv")
    assert (figures["part"], figures["samples"]) == ("all", 120)
    assert figures.get("accuracy", figures.get("r2")) > 0.7
    new = make_frame(0)[["area", "town", "zip"]]  # in another order
    new.to_parquet(tmp_path / "new.parquet")
    run(capsys, "predict", shelf / kind, tmp_path / "new.parquet", "--out", tmp_path / "a.npz")
    run(capsys, "predict", shelf / kind, shelf / "data.csv", "--out", tmp_path / "b.npz")
    name = "value" if "regressor" in kind else "label"
    answers = np.load(tmp_path / "a.npz")[name]
    np.testing.assert_array_equal(answers, np.load(tmp_path / "b.npz")[name])
    model = glai.prepared(shelf / kind)
    np.testing.assert_array_equal(model.predict(new), answers)
    known = run(capsys, "inspect", shelf / kind)["preparation"]
    assert (known["numbers"], known["gaps_in"], [*known["categories"]]) == (
        ["area"],
        ["area"],
        ["zip", "town"],
    )
    assert model.label_ == ("price" if "regressor" in kind else "kind")


@pytest.mark.parametrize("kind", KINDS)
def test_learn_forget_merge(shelf, tmp_path, kind, capsys):
    make_frame(1).to_csv(tmp_path / "more.csv", index=False)
    if kind in WITHOUT_SUMS:
        said = run(capsys, "learn", shelf / kind, tmp_path / "more.csv", "--out", tmp_path / "m")
        assert (said["exact"], said["learnt"] + said["held_out"]) == (False, 120)
        figures = run(capsys, "evaluate", tmp_path / "m", shelf / "data.csv")  # the table's names have stayed
        assert figures.get("accuracy", figures.get("r2")) > 0.7
        assert "has weights alone" in refused(capsys, "forget", tmp_path / "m", tmp_path / "more.csv")
        return
    said = run(capsys, "learn", shelf / kind, tmp_path / "more.csv", "--out", tmp_path / "m")
    assert said["samples_seen"] == 240
    (tmp_path / "ids.txt").write_text("\n".join(f"s1-{i}" for i in range(120)))
    arguments = ("forget", tmp_path / "m", tmp_path / "more.csv", "--ids", tmp_path / "ids.txt")
    assert run(capsys, *arguments)["samples_seen"] == 120
    figures = run(capsys, "evaluate", tmp_path / "m", shelf / "data.csv")
    assert figures.get("accuracy", figures.get("r2")) > 0.7
    if "exact" in kind:
        digests = [run(capsys, "inspect", folder)["digest"] for folder in (shelf / kind, tmp_path / "m")]
        assert digests[0] == digests[1]
    told = [one for one in KINDS[kind] if one not in SMALL]
    arguments = ("train", tmp_path / "more.csv", *told)
    run(capsys, *arguments, "--structure", shelf / kind, "--out", tmp_path / "b")
    method = () if "exact" in kind else ("--method", "statistics", "--l2", 1)
    merged = run(capsys, "merge", shelf / kind, tmp_path / "b", *method, "--out", tmp_path / "ab")
    assert merged["samples_seen"] == 240
    assert "kind" in run(capsys, "evaluate", tmp_path / "ab", tmp_path / "more.csv")
    told = [*told, *(() if "exact" in kind else SMALL)]
    run(
        capsys,
        "train",
        tmp_path / "more.csv",
        *told,
        "--drop",
        "kind" if "price" in told else "price",
        "--categories",
        "zip",
        "--out",
        tmp_path / "c",
    )
    error = refused(capsys, "merge", shelf / kind, tmp_path / "c", "--out", tmp_path / "no")
    assert "must prepare their tables alike" in error


def test_what_a_table_lacks_or_holds_besides(shelf, tmp_path, capsys):
    frame = make_frame(0).drop(columns="price")
    frame.assign(floor=1).to_csv(tmp_path / "more.csv", index=False)
    assert main(["evaluate", str(shelf / "exact"), str(tmp_path / "more.csv")]) == 0
    assert "more.csv: left out, since the model was not trained on it: 'floor'" in capsys.readouterr().err
    frame.drop(columns="town").to_csv(tmp_path / "few.csv", index=False)
    error = refused(capsys, "evaluate", shelf / "exact", tmp_path / "few.csv")
    assert "few.csv: must have the 3 columns that the model was trained on, got none called 'town'" in error
    frame["area"] = [*["12"] * 17, "abc", *["13"] * 102]
    frame.to_csv(tmp_path / "text.csv", index=False)
    for command in (("evaluate", shelf / "exact"), ("learn", shelf / "exact"), ("train",)):
        more = ("--out", tmp_path / "no", "--label", "kind") if command == ("train",) else ()
        error = refused(capsys, *command, tmp_path / "text.csv", *more)
        assert "text.csv: row 17, column 'area': 'abc' is not a number" in error
    frame.assign(area=1.0, town="Paris", zip=7).to_csv(tmp_path / "strange.csv", index=False)
    assert run(capsys, "evaluate", shelf / "exact", tmp_path / "strange.csv")["samples"] == 120


def test_classes_or_values(tmp_path, capsys):
    x = np.arange(60) / 7
    columns = {
        "few": np.arange(60) % 3,
        "year": 1960 + np.arange(60),
        "numbered": np.arange(60) % 24,
        "word": "ab",
    }
    columns |= {"half": x, "on": x > 4}
    frame = pandas.DataFrame(columns | {"word": np.where(x > 2, "a", "b"), "x": x})
    frame.to_csv(tmp_path / "d.csv", index=False)
    found = {}
    for label in ("few", "year", "numbered", "word", "half", "on"):
        told = ("--exact", "--units", 4, "--label", label, "--out", tmp_path / label)
        said = run(capsys, "train", tmp_path / "d.csv", *told)
        found[label] = said["task"], said["task_reason"]
    assert found["few"] == ("classification", "'few' holds 3 different whole numbers")
    assert found["year"] == ("regression", "'year' holds 60 different whole numbers")
    assert found["numbered"] == (
        "regression",
        "'numbered' holds 24 different whole numbers",
    )  # of too few samples each
    assert found["half"] == ("regression", "'half' holds numbers that are not all whole")
    assert found["word"] == ("classification", "'word' holds labels")
    assert found["on"] == ("classification", "'on' holds labels")
    told = ("--exact", "--units", 4, "--label", "few", "--task", "regression", "--out", tmp_path / "forced")
    assert run(capsys, "train", tmp_path / "d.csv", *told)["task"] == "regression"
    error = refused(
        capsys,
        "train",
        tmp_path / "d.csv",
        *told[:3],
        "--label",
        "word",
        "--regression",
        "--out",
        tmp_path / "no",
    )
    assert "row 0, column 'word': 'b' is not a number, and values are asked for" in error


def test_tables_as_they_are_and_options_of_tables(shelf, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=np.eye(8), y=np.arange(8) % 2)
    for options in (["--categories", "a"], ["--drop", "a"], ["--no-preparation"]):
        error = refused(capsys, "train", tmp_path / "a.npz", "--out", tmp_path / "no", *options)
        assert f"{options[0]} is of new tables, .csv and .parquet" in error
    told = ("--label", "price", "--out", tmp_path / "no")
    error = refused(capsys, "train", shelf / "price.csv", *told, "--no-preparation")
    assert (
        "column 'town' must be numbers, got 'Vigo' in row" in error
        or "column 'town' must be numbers" in error
    )
    for option in ("--categories", "--drop"):
        error = refused(capsys, "train", shelf / "price.csv", *told, option, "tow")
        assert f"{option} must name columns of" in error
        assert "got 'tow'" in error
    make_frame(0)[["zip", "price"]].to_csv(tmp_path / "raw.csv", index=False)
    told = ("--label", "price", "--exact", "--units", 4, "--no-preparation", "--out", tmp_path / "raw")
    assert run(capsys, "train", tmp_path / "raw.csv", *told)["preparation"] is None
    assert glai.ExactRegressor.load(tmp_path / "raw").feature_names_in_.tolist() == ["zip"]
    with pytest.raises(ValueError, match="was trained without a preparation; ExactRegressor.load opens it"):
        glai.prepared(tmp_path / "raw")


def test_a_test_file_and_a_test_share(shelf, tmp_path, capsys):
    told = ("--label", "price", "--exact", "--units", 4)
    said = run(
        capsys, "train", shelf / "price.csv", *told, "--test", shelf / "some.csv", "--out", tmp_path / "a"
    )
    assert (said["train"], said["test"]) == (120, 40)
    said = run(capsys, "train", shelf / "price.csv", *told, "--test-share", 0.2, "--out", tmp_path / "b")
    assert (said["train"], said["test"]) == (96, 24)
    again = run(
        capsys, "evaluate", tmp_path / "b", shelf / "price.csv", "--part", "test", "--test-share", 0.2
    )
    assert (again["samples"], again["rmse"]) == (24, said["rmse"])
    train = pandas.read_csv(shelf / "price.csv")
    fitted = glai.prepared(tmp_path / "b").preparation_.columns["area"]
    assert (
        fitted.mean != glai.prepared(tmp_path / "a").preparation_.columns["area"].mean
    )  # test rows are not seen
    assert len(train) == 120


@pytest.mark.parametrize("kind", ["exact", "statistics"])
def test_a_flipped_bit_of_the_preparation_is_refused(shelf, tmp_path, kind, capsys):
    shutil.copytree(shelf / kind, tmp_path / "m")
    (file,) = [path for path in (tmp_path / "m").iterdir() if b"Vigo" in path.read_bytes()]
    content = file.read_bytes()
    file.write_bytes(content.replace(b"Vigo", b"Vigp", 1))
    error = refused(capsys, "evaluate", tmp_path / "m", shelf / "data.csv")
    assert "checksum" in error


def test_models_hold_their_preparation_as_numbers_and_names(shelf):
    with pytest.warns(UserWarning, match="takes samples prepared alike; glai.prepared"):
        model = glai.ExactClassifier.load(shelf / "exact")
    assert isinstance(model.preparation, Preparation)
    assert model.preparation.names == ["zip", "town", "area"]
    assert model.n_features_in_ == model.preparation.n_features
    x = np.zeros((4, model.n_features_in_))
    model.fit(x, ["a", "b"] * 2)  # of other samples, which nothing prepares
    assert model.preparation is None


def test_another_column_called_target_is_not_the_model_s_label(shelf, tmp_path, capsys):
    frame = make_frame(7).drop(columns="kind")
    frame.assign(target=range(len(frame))).to_csv(tmp_path / "other.csv", index=False)
    before = run(capsys, "inspect", shelf / "statistics")
    for command in ("learn", "evaluate"):
        error = refused(capsys, command, shelf / "statistics", tmp_path / "other.csv")
        assert "must have the label's column, which the model knows as 'kind'" in error
    assert run(capsys, "inspect", shelf / "statistics") == before
    run(capsys, "predict", shelf / "statistics", tmp_path / "other.csv", "--out", tmp_path / "answers.csv")
