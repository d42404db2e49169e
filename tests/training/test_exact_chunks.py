"""What an exact learner says of chunks that are wrong, and of ids that are in use."""

import warnings

import numpy as np
import pytest
import torch

import glai_native as glai
from conftest import make_mlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = np.arange(60) % 3
IDS = np.arange(60)


def chunks(*changes):
    """Four chunks of 15, of which some are replaced."""
    found = [(X[at : at + 15], Y[at : at + 15]) for at in range(0, 60, 15)]
    for number, chunk in changes:
        found[number] = chunk
    return iter(found)


def nan_in(row):
    x = X[:15].copy()
    x[row, 2] = np.nan
    return x


@pytest.mark.parametrize(
    ("number", "chunk", "message"),
    [
        (3, (X[:15, :3], Y[:15]), r"chunk 3: x must be .*4"),
        (0, (nan_in(7), Y[:15]), r"chunk 0: [xX] must be finite .*row 7"),
        (2, (nan_in(7), Y[:15]), r"chunk 2: .*row 7"),
        (2, (X[:15], np.full(15, "ant")), r"chunk 2: y must hold labels of type int"),
        (1, (X[:15], Y[:14]), r"chunk 1: .*15.*14"),
        (1, (X[:15], Y[:15], np.full(15, 0.5)), r"chunk 1: sample_weight must be integers .*row 0"),
        (2, X, r"chunk 2 must be \(x, targets\), .* got ndarray"),
        (3, (X[:15], Y[:15], None, ["a"]), r"chunk 3: ids must be \[N=15\]"),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "partial_fit"])
def test_a_chunk_s_error_names_it(number, chunk, message, verb):
    model = glai.ExactClassifier(8)
    if verb == "partial_fit":
        model.fit(X, Y)
    digest = model.digest() if verb == "partial_fit" else None
    with pytest.raises(ValueError, match="^ExactClassifier: " + message):
        getattr(model, verb)(chunks((number, chunk)))
    if digest is not None:
        assert model.digest() == digest


def test_empty_chunks_are_counted():
    none = (X[:0], Y[:0])
    whole = glai.ExactClassifier(8, structure="random").fit(X, Y)
    kept = whole.features_
    model = glai.ExactClassifier(8, structure=kept).fit(iter([none, none, *chunks(), none]))
    assert model.digest() == whole.digest()
    with pytest.raises(ValueError, match="ExactClassifier: chunk 2: X must be .* row 1"):
        glai.ExactClassifier(8).fit(iter([none, none, (nan_in(1), Y[:15])]))
    with pytest.raises(ValueError, match="ExactClassifier: data must hold samples, got none"):
        glai.ExactClassifier(8).fit(iter([none, none]))


def test_values_in_chunks():
    y = X.sum(1)
    wrong = y[:15].copy()
    wrong[4] = np.inf
    with pytest.raises(ValueError, match="ExactRegressor: chunk 1: .*row 4"):
        glai.ExactRegressor(8).fit(iter([(X[:15], y[:15]), (X[:15], wrong)]))


def test_rows_of_a_file_are_named_as_they_are_read(tmp_path):
    x = np.repeat(X, 300, axis=0)
    x[17_000, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.raises(ValueError, match="ExactClassifier: rows from 16,384 on: .*row 616"):
        glai.ExactClassifier(8, structure="random").fit(mapped, np.repeat(Y, 300))


def test_what_sums_say_is_said_by_the_learner():
    model = glai.ExactClassifier(8).fit(X, Y)
    with pytest.raises(
        ValueError, match="^ExactClassifier: the samples must be among those that were learnt"
    ):
        model.forget(X + 1, Y)
    with pytest.raises(ValueError, match="^ExactClassifier: ids must be"):
        model.partial_fit(X, Y, ids=[1])
    model = glai.ExactClassifier(8, l2="held-out", structure="random").fit(X, Y)
    other = glai.ExactClassifier(8, structure=model.features_).fit(X + 1, Y)
    merged = model.merge(other)
    with pytest.raises(ValueError, match="^ExactClassifier: l2='held-out' needs sums .*; take l2='gcv'"):
        merged.predict(X)


def in_use(model, *arguments, verb="partial_fit", **named):
    """Return how many ids a warning says are in use."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        getattr(model, verb)(*arguments, **named)
    told = [one for one in told if "of the ids" in str(one.message)]
    if not told:
        return 0
    (one,) = told
    assert one.filename == __file__
    assert one.category is UserWarning
    assert "ExactClassifier: of the ids" in str(one.message)
    return int(str(one.message).split("of the ids ")[1].split(" ")[0])


@pytest.mark.parametrize("of_texts", [False, True])
def test_ids_in_use_are_told(of_texts):
    ids = IDS.astype(str) if of_texts else IDS
    model = glai.ExactClassifier(8, structure="random")
    assert (
        in_use(
            model,
            X,
            Y,
            ids=ids // 2 if not of_texts else np.char.add("a", (IDS // 2).astype(str)),
            verb="fit",
        )
        == 30
    )
    assert in_use(model, X, Y, ids=ids, verb="fit") == 0
    assert in_use(model, X + 1, Y) == 0
    assert in_use(model, X[:10] + 2, Y[:10], ids=ids[:10]) == 10
    assert in_use(model, X[:10] + 3, Y[:10], ids=np.arange(5, 15) + 50) == 5
    weight = np.arange(10) % 3
    assert in_use(model, X[:10] + 4, Y[:10], ids=np.arange(10) + 100, sample_weight=weight) == 0
    assert in_use(model, X[:10] + 5, Y[:10], ids=np.zeros(10, dtype=int) + 200, sample_weight=weight) == 5


def test_ids_of_chunks_in_use_are_told():
    model = glai.ExactClassifier(8, structure="random")
    weight = np.full(15, 2)
    parts = [(X[at : at + 15], Y[at : at + 15], weight, IDS[at : at + 15]) for at in range(0, 60, 15)]
    assert in_use(model, iter(parts), verb="fit") == 0
    assert in_use(model, iter(parts[:2])) == 30
    assert in_use(glai.ExactClassifier(8, ledger=False), X, Y, verb="fit") == 0


def test_a_stream_s_errors_name_the_chunk():
    selector = glai.PathSelector(make_mlp(4, 5, 3))
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    good, told = (x[:15], y[:15]), {"solver": "statistics", "progress": False}
    for wrong, message in (
        ((x[:15, :3], y[:15]), r"fit: chunk 2: x must be \[N, D=4\], got \[15, 3\]"),
        ((x[:15] / 0, y[:15]), "fit: chunk 2: x must be finite"),
        ((x[:15], y[:14]), r"fit: chunk 2: y must be class indices \[N=15\]"),
        (x, r"fit: chunk 2: must be \(x, y\), which a sample_weight may follow, got Tensor"),
    ):
        with pytest.raises(ValueError, match="^" + message):
            glai.fit(selector, iter([good, good, wrong]), **told)
    with pytest.raises(TypeError, match="^fit: chunk 1: x must be a torch.Tensor"):
        glai.fit(selector, iter([good, (X, Y)]), **told)
