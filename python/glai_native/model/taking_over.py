"""A ``state_dict`` is taken over whole: with the structure that it is of, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import (
    PathSelector,
    holds_another,
    require_same_structure,
    stated_structure,
)

# Buffers that a structure has or lacks.
OPTIONAL = ("output_weight", "output_bias", "kept_paths")
PROJECTION = ("mean", "scale", "rotation")


def take_over_structure(model: Any, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Make a model ready, before a state is loaded into it, for the structure that the state is of.

    So a checkpoint goes into a network that was built anew: other random weights, replaced by a head of the same sizes.
    A state of the model's own structure may hold parts of it, as any module's; one of another must be whole, since
    numbers of one structure with the gates of another are neither model.

    Args:
        model: a ``GLAI``.
        state: what is loaded into the module that holds it.
        prefix: of the model's own names in it.

    Raises:
        ValueError: it is of another structure, and of other sizes, or not whole; or it is the MLP's that was replaced.
    """
    owner, own = type(model).__name__, {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    mine, theirs = model.structure_id, _structure_of(own)
    if not any(key.startswith(("selector.", "estimator.")) for key in own):
        if "weight" in own:
            raise ValueError(
                f"{owner}: the state must be of this model, got that of the MLP which it replaced; load the MLP's "
                "state before replace_mlp"
            )
        return  # nothing of it: strict loading says so
    kind = _kind_of(own, model)
    if kind != model.estimator.kind:
        raise ValueError(
            f"{owner}: the state must be of {model.estimator.kind} like this model, got one of {kind}; make the model "
            "of that kind, as directions= of replace_mlp and PathEstimator.from_selector does"
        )
    if theirs == mine:
        require_same_structure(model.selector, own, "selector.")
        return
    if theirs is None and not holds_another(own, "selector.", model.selector):
        return
    stated = "without a structure_id" if theirs is None else f"of structure_id {theirs[:12]}…"
    expected = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    optional = {
        *(f"selector.{name}" for name in OPTIONAL),
        *(f"selector.projection.{name}" for name in PROJECTION),
    }
    for name, tensor in expected.items():
        found = own.get(name)
        if name in optional:  # adopted as they are
            continue
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            sizes = list(found.shape) if isinstance(found, Tensor) else "nothing"
            raise ValueError(
                f"{owner}: a state {stated}, of another structure than this model's {mine[:12]}…, must hold "
                f"all of a model of the same sizes, but of {prefix}{name} {list(tensor.shape)} it has {sizes}; build "
                "the network with the same layers, or read a model's own files with load"
            )
    selector = _selector_of(own, model.selector)
    if (selector.in_features, selector.n_paths) != (model.selector.in_features, model.selector.n_paths):
        raise ValueError(
            f"{owner}: a state {stated} must be of in_features={model.selector.in_features} and "
            f"P={model.selector.n_paths} paths, got {selector.in_features} and {selector.n_paths}"
        )
    if theirs is not None and selector.structure_id != theirs:
        dtype = str(selector.hidden[0][0].dtype).removeprefix("torch.")
        raise ValueError(
            f"{owner}: the state must hold the structure that it states, {theirs[:12]}…, got "
            f"{selector.structure_id[:12]}… in this model's {dtype}; where the state is wider, cast the model first, "
            "else it is damaged"
        )
    # Not in place: other models may share the selector that was here.
    model.selector = selector.train(model.selector.training)
    model.estimator.structure_id = selector.structure_id
    model.statistics = None


def _kind_of(own: Mapping[str, Any], model: Any) -> str:
    """Return the kind of estimator whose numbers a state holds; the model's own where they do not tell."""
    if "estimator.u" in own:
        return "output directions"
    weight = own.get("estimator.weight")
    if not isinstance(weight, Tensor) or weight.ndim != 3:
        return cast(str, model.estimator.kind)
    selector = model.selector
    return "units" if weight.shape[:2] == (1, selector.widths[-1] + selector.z_features) else "full paths"


def _structure_of(own: Mapping[str, Any]) -> str | None:
    return stated_structure(own, "selector.") or stated_structure(own, "estimator.")


def _selector_of(own: Mapping[str, Any], before: PathSelector) -> PathSelector:
    """Make the selector of a whole state, of the dtype and on the device of the one before."""
    like = before.hidden[0][0]

    def taken(name: str) -> Tensor | None:
        tensor: Tensor | None = own.get(f"selector.{name}")
        if tensor is None:
            return None
        here = before.state_dict().get(name, like if name.startswith(("hidden", "output")) else tensor)
        return tensor.detach().to(like.device, here.dtype, copy=True)

    projection = InputProjection(before.in_features, *(taken(f"projection.{name}") for name in PROJECTION))
    hidden = [(taken(f"hidden_weight_{i}"), taken(f"hidden_bias_{i}")) for i in range(len(before.widths))]
    selector = PathSelector.from_layers(projection, hidden, taken("kept_paths"))  # type: ignore[arg-type]
    for name in ("output_weight", "output_bias"):
        selector.register_buffer(name, taken(name))
    return selector
