"""Gates that nothing was learnt for are tried where those of a trained structure bring nothing over a linear model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from rich.console import Console

from glai_native.model.glai import GLAI
from glai_native.solvers.choice import FEW_SAMPLES, options_of
from glai_native.structure.network import drawn_network
from glai_native.structure.selector import PathSelector
from glai_native.training.fitting import FitResult

# Standard errors of the linear model's held-out score within which trained gates bring nothing. On 1,280 features of
# images, 20,200 samples of 100 classes, a structure learnt its own samples by heart: 0.545 and 0.558 by the loop and by
# statistics on those held out, the linear model 0.571 ± 0.011, and 0.583 over gates as they were drawn.
CLEAR = 2.0


def or_untrained(
    trained: FitResult,
    n_samples: int,
    seed: int,
    fit_over: Callable[[PathSelector], FitResult],
    progress: bool = False,
) -> FitResult:
    """Return a fit over gates as they were drawn, where trained ones brought nothing and held-out samples prefer those.

    Random gates are a control of the method, and on embeddings often as good (DESIGN, "What is known").

    Args:
        trained: over a structure that was trained on none of the samples held out.
        n_samples: N. Few samples' model is the dual, which any gates serve.
        seed: of what is drawn: the network that the structure began as.
        fit_over: fits a structure as ``trained`` was fitted, the same samples held out.
        progress: say on standard error what is tried, and what came of it.
    """
    lead = trained.score - trained.linear_score
    if trained.solver == "dual" or n_samples <= FEW_SAMPLES or not lead <= CLEAR * trained.standard_error:
        return trained  # NaN: nothing was held out
    console = Console(stderr=True, quiet=not progress, highlight=False, soft_wrap=True)
    console.print(
        "trained gates bring little over the linear model; for comparison, gates that were never trained:"
    )
    try:
        untrained = fit_over(_drawn(trained.model.selector, seed))
    except (FloatingPointError, MemoryError):
        return replace(trained, reason=f"{trained.reason}; gates that were never trained failed")
    found, before = untrained.score, trained.score
    # A loop was stopped by the held-out samples, and looks better on them than it is beside a closed form.
    margin = trained.standard_error if untrained.solver == "sgd" != trained.solver else 0.0
    taken, verdict = (untrained, "taken") if found > before + margin else (trained, "not clearly better")
    model = taken.model
    if (model.estimator if isinstance(model, GLAI) else model).has_values:
        found, before = -found, -before  # squared errors
    if "as asked" not in trained.reason:  # by the user, who asked for none
        taken = replace(taken, reason=taken.reason.replace("as asked", "the loop alone was tried", 1))
    said = f"gates that were never trained are {verdict} ({found:.4g} against {before:.4g})"
    console.print(said)
    return replace(
        taken,
        reason=f"{taken.reason}; {said}",
        seconds=trained.seconds | {"untrained": sum(untrained.seconds.values())},
    )


def solver_of_untrained(solver: str, options: Iterable[str]) -> str:
    """Return the solver for them: of "auto" the loop alone, the best of all on embeddings in half of their time."""
    return "sgd" if solver == "auto" and set(options) <= set(options_of("sgd")) else solver


def _drawn(selector: PathSelector, seed: int) -> PathSelector:
    """Return a structure of the same projection and sizes, of the network that :func:`train_selector` begins with."""
    assert selector.output is not None  # of a structure that was trained just now
    widths = [selector.z_features, *selector.widths, len(selector.output[0])]
    return PathSelector(drawn_network(widths, seed).to(selector.hidden[0][0]), selector.projection)
