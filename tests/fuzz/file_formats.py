"""One small file of every format, what reads it, and what that gives: for tests that damage them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

import glai_native as glai
from glai_native.machine import files, writing

N, D, C = 12, 3, 2


@dataclass(frozen=True)
class Format:
    """``files``: content by name, in a folder of their own; ``read`` opens the folder and gives all that it says."""

    name: str
    files: Mapping[str, bytes] = field(repr=False)
    read: Callable[[Path], Any]

    def write(self, folder: Path) -> None:
        """Make the folder hold these files, and no others."""
        for path in folder.iterdir():
            if path.name not in self.files:
                path.unlink()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def digest(found: Any) -> str:
    """Hash tensors, numbers and texts, nested as they may be."""
    total = hashlib.sha256()
    for part in _parts(found):
        total.update(part)
    return total.hexdigest()


def _parts(found: Any) -> Iterable[bytes]:
    if isinstance(found, Tensor):
        yield repr((found.dtype, list(found.shape))).encode()
        yield found.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(found, Mapping):
        for key in sorted(found):
            yield repr(key).encode()
            yield from _parts(found[key])
    elif isinstance(found, (list, tuple)):
        yield f"[{len(found)}".encode()
        for one in found:
            yield from _parts(one)
    else:
        yield repr(found).encode()


def outcome(form: Format, folder: Path) -> tuple[str, str]:
    """Return ``("refused", sentence)`` or ``("read", digest)``; raise for any answer that is neither."""
    try:
        return "read", digest(form.read(folder))
    except (ValueError, OSError) as error:
        sentence = str(error)
        assert sentence, "an error without a word"
        assert len(sentence.splitlines()) == 1, f"more than a line: {sentence!r}"
        return "refused", sentence


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a safetensors file into its parsed header and its payload."""
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(header: Any, payload: bytes) -> bytes:
    """Put a safetensors file together."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def signed(header: dict[str, Any], payload: bytes) -> bytes:
    """Return a file as if it had been written so, of the right checksum, where it can be parsed at all."""
    content = with_header(header, payload)
    try:
        tensors = safetensors.torch.load(content)
        checksum = files._checksum(header["__metadata__"], tensors)
    except Exception:  # whatever the library thinks of it
        return content
    metadata = header["__metadata__"] | {files.CHECKSUM: checksum}
    return with_header(header | {"__metadata__": metadata}, payload)


def formats(folder: Path) -> list[Format]:
    """Write one of each into folders below ``folder``, and return them."""
    torch.manual_seed(7)
    x, y = torch.randn(N, D) * 2 + 1, torch.arange(N) % C
    made = _models(folder, x, y)
    selector = glai.GLAI.load(folder / "statistics").selector
    made += _checkpoints(folder, selector, x, y)
    made += _exact(folder, x, y)
    made.append(_federation(folder))
    return [form for form in made if form is not None]


def _mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _model(folder: Path) -> Any:
    model = glai.GLAI.load(folder)
    estimator, statistics = model.estimator, model.statistics
    sums = None if statistics is None else statistics.sums()
    return [
        model.state_dict() | {"selector._extra_state": model.structure_id},
        {"e": estimator.state_dict()},
        [estimator.provenance, estimator.class_labels, estimator.target_mean, estimator.target_scale],
        [model.selector.parent_id, model.selector.widths, getattr(estimator, "temperature", None)],
        [sums, None if statistics is None else [statistics.n_samples, statistics.class_labels]],
    ]


def _models(folder: Path, x: Tensor, y: Tensor) -> list[Format]:
    selector = glai.PathSelector(_mlp(D, 4, C), glai.InputProjection.fit(x))
    z, gates = selector.project(x), selector.gates(x)
    sizes = selector.n_paths, selector.z_features, C
    made = []
    statistics = glai.PathStatistics(*sizes, structure_id=selector.structure_id)
    statistics.update(z, gates, y)
    estimator = statistics.solve(0.5, dtype=torch.float32)
    estimator.class_labels = ["dog", "fog"]
    estimator.temperature = 0.75
    made.append(glai.GLAI(selector, estimator, statistics))
    directed = glai.PathEstimator.from_selector(selector, glai.output_directions(selector, C))
    directed.record(gates, y)
    directed.class_labels = [1, 7]
    made.append(glai.GLAI(selector, directed))
    deep = glai.PathSelector(_mlp(2, 4, 3, C), glai.InputProjection.fit(x, 2))
    deep = glai.GLAI(deep, glai.PathEstimator.from_selector(deep))
    pruned = glai.prune(deep, deep.selector.unit_gates(x), keep=0.5)
    assert pruned.selector.kept_paths is not None
    made.append(pruned)
    values = glai.PathEstimator(*sizes)
    values.set_target_scaling([3.0, -1.0], [0.5, 2.0])
    values.weight.data.normal_()
    made.append(glai.GLAI(selector, values))
    forms = []
    for name, model in zip(("statistics", "directions", "pruned", "values"), made, strict=True):
        model.save(folder / name)
        forms.append(Format(name, _content(folder / name), _model))
    kernel = glai.PathKernelModel(selector).fit(x, y, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel.save(folder / "kernel")
    forms.append(Format("kernel", _content(folder / "kernel"), _kernel))
    for name, owner in (("gates", pruned.selector), ("gates of all", selector)):
        store = glai.GateStore.create(folder / name, owner)
        layers = owner.unit_gates(x)
        store.append([layer[:5] for layer in layers])
        store.append([layer[5:] for layer in layers])
        forms.append(Format(name, _content(folder / name), _store))
    forms.append(_half_renamed(folder, selector, directed, values))
    learner = glai.GLAIClassifier((4,), structure_epochs=1, solver="statistics", validation_fraction=0.0)
    learner.fit(x.numpy(), [["dog", "fog"][i] for i in y.tolist()]).save(folder / "learner")
    forms.append(Format("learner", _content(folder / "learner"), _learner))
    return forms


def _learner(folder: Path) -> Any:
    learner = glai.GLAIClassifier.load(folder)
    scores = learner.predict_proba(torch.arange(6.0).reshape(2, 3).numpy())
    return [torch.from_numpy(scores), learner.classes_.tolist(), repr(learner.get_params()), _model(folder)]


def _kernel(folder: Path) -> Any:
    model = glai.PathKernelModel.load(folder)
    scores = model.predict(torch.arange(6.0).reshape(2, 3))
    figures = [model.l2, model.loo_error, model.loo_accuracy, model.n_samples, model.unsolved]
    kept = [] if model.kept is None else [model.kept.y]
    return [scores, model.alpha, model.centres.z, *kept, figures, model.selector.state_dict() | {"x": 0}]


def _store(folder: Path) -> Any:
    store = glai.GateStore.open(folder)
    layers = store.unit_gates(slice(None))
    estimates = [repr(layer.estimate) for layer in layers]
    return [
        [layer.words for layer in layers],
        estimates,
        [store.structure_id, store.widths, len(store)],
        store.kept_paths,
    ]


def _half_renamed(folder: Path, selector: Any, before: Any, after: Any) -> Format:
    """A folder that a killed writer left with its record, and no file renamed."""
    place = folder / "half renamed"
    glai.GLAI(selector, before).save(place)
    replace, killed = os.replace, []

    def kill(source: Any, target: Any) -> None:
        replace(source, target)
        if Path(target).name == writing.RECORD:
            killed.append(target)
            raise KeyboardInterrupt

    os.replace = kill
    try:
        glai.GLAI(selector, after).save(place)
    except KeyboardInterrupt:
        pass
    finally:
        os.replace = replace
    assert killed
    return Format("half renamed", _content(place), _model)


def _checkpoints(folder: Path, selector: Any, x: Tensor, y: Tensor) -> list[Format]:
    z, gates = selector.project(x), selector.gates(x)
    sizes = selector.n_paths, selector.z_features, C
    forms = []
    for name, n in (("training", N), ("validated training", 9)):
        rows = slice(n)
        held_out = {"validation": (z[n:], gates[n:], y[n:])} if n < N else {}

        def train(path: Path, epochs: int = 3, rows: slice = rows, held_out: Any = held_out) -> Any:
            torch.manual_seed(1)
            estimator = glai.PathEstimator(*sizes, structure_id=selector.structure_id)
            history = glai.train_estimator(
                estimator, z[rows], gates[rows], y[rows], epochs=epochs, batch_size=4, checkpoint=path, progress=False,
                **held_out,
            )  # fmt: skip
            figures = [[e.epoch, e.loss, e.validation_loss, e.validation_score] for e in history]
            return [figures, [e.seconds for e in history[:2]], estimator.state_dict() | {"_extra_state": 0}]

        place = folder / name
        place.mkdir()
        train(place / "c.safetensors", 2)
        forms.append(Format(name, _content(place), lambda at, train=train: train(at / "c.safetensors")))

    def accumulated(path: Path, weight: Tensor) -> Any:
        statistics = glai.PathStatistics(*sizes, structure_id=selector.structure_id)
        glai.accumulate(
            statistics, z, gates, y, weight, chunk=4, checkpoint=path, save_every=1, progress=False
        )
        return [statistics.sums(), statistics.n_samples]

    weight, place = torch.tensor([0.0, 1, 2, 1] * 3), folder / "accumulation"
    place.mkdir()
    path, write, calls = place / "a.safetensors", writing.write_files, []
    accumulating = __import__("glai_native.solvers.statistics.accumulating", fromlist=["write_files"])

    def killed(contents: Any) -> None:
        write(contents)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    accumulating.write_files = killed
    try:
        accumulated(path, weight)
    except KeyboardInterrupt:
        pass
    finally:
        accumulating.write_files = write
    assert len(calls) == 2
    form = Format("accumulation", _content(place), lambda at: accumulated(at / "a.safetensors", weight))
    return [*forms, form]


def _exact(folder: Path, x: Tensor, y: Tensor) -> list[Format]:
    """Integer statistics of classes, with ids of both types, and of values; random units, and trained ones."""
    random = glai.IntegerStatistics(glai.IntegerFeatures.fit(x, 3), C, per_class=True)
    random.class_labels = ["dog", "fog"]
    random.update(x, y, ids=[f"é {i}" for i in range(N)])
    features = glai.IntegerFeatures.fit(x, None, glai.PathSelector(_mlp(D, 4, 2, C)))
    trained = glai.IntegerStatistics(features, 2, targets="values", ledger=False)
    trained.update(x, x[:, :2])
    numbered = glai.IntegerStatistics(features, C)
    numbered.update(x, y, ids=range(N))
    forms = []
    for name, statistics in (("exact", random), ("exact values", trained), ("exact ids", numbered)):
        place = folder / name
        place.mkdir()
        statistics.save(place / "e.safetensors")
        features.save(place / "f.safetensors")
        forms.append(Format(name, _content(place), _exact_content))
    return forms


def _exact_content(folder: Path) -> Any:
    read = glai.IntegerStatistics.load(folder / "e.safetensors")
    features = glai.IntegerFeatures.load(folder / "f.safetensors")
    ledger = read.ledger
    kept = (
        []
        if ledger is None
        else [ledger.hashes.tobytes(), None if ledger.ids is None else ledger.ids.tolist()]
    )
    grams = [] if read.class_grams is None else [read.class_grams]
    return [
        read.digest(),
        read.class_labels,
        kept,
        grams,
        features.features_id,
        features.seed,
        read.features.seed,
    ]


def _federation(folder: Path) -> Format | None:
    try:
        from glai_native.federated.path_progress import PathProgress
        from glai_native.federated.rounds import FederatedRound
        from glai_native.federated.settings import FederationSettings
    except ImportError:  # without Flower
        return None
    model, settings = glai.GLAI.load(folder / "statistics"), FederationSettings(C, hidden="4", l2="0.5")
    place = folder / "federation"
    rounds = [FederatedRound(1, 2, 1, N, 10, 20, 0.5, ["b: late"])]
    stated = {"source": "random", "bytes": 3}
    PathProgress(
        folder=place,
        settings=settings,
        stated=stated,
        contributed=["a"],
        rounds=rounds,
        selector=model.selector,
        estimator=model.estimator,
        statistics=model.statistics,
    ).save()

    def read(at: Path) -> Any:
        progress = PathProgress.load(at, settings)
        assert progress is not None
        kept = [progress.stated, progress.contributed, [repr(done) for done in progress.rounds]]
        return [kept, _model(at)]

    return Format("federation", _content(place), read)
