"""Calls of the native training loop, one batch each, and of a whole model's output."""

import itertools

import torch
from torch.nn.functional import cross_entropy

import glai_native._native as _native
from fuzz.call import Call, Draw
from fuzz.gate_calls import firing
from glai_native.ops import oracle as ref

BETAS, EPS = (0.9, 0.999), 1e-8
WIDTHS = (1, 2, 3, 5, 8, 31, 33)


def train_steps(draw: Draw) -> Call:
    rng, dtype = draw.rng, draw.dtype
    draw.n = max(draw.n, 1) if draw.n < 130 else 64
    p, d, c = rng.choice((1, 2, 3, 9, 33)), rng.choice(WIDTHS), rng.choice(WIDTHS)
    along, classes = rng.random() < 0.5, rng.random() < 0.5
    words, bits = draw.gates(p)
    x, weight = draw.matrix(draw.n, d), draw.maybe(lambda: draw.matrix(draw.n))
    batch = rng.choice((1, 3, 8, 33))
    ids = torch.tensor([rng.randrange(draw.n) for _ in range(rng.randint(1, batch))])
    order = draw.memory.place(rng, ids)
    if classes:
        targets = draw.memory.place(rng, torch.tensor([rng.randrange(c) for _ in range(draw.n)]))
    else:
        targets = draw.matrix(draw.n, c)
    v = draw.matrix(p, c) if along else None
    k = (d + 1) * (p + c) if along else p * (d + 1) * c
    state = {name: draw.packed(k) for name in ("parameters", "exp_avg", "exp_avg_sq", "mean")}
    before = {name: draw.started(tensor) for name, tensor in state.items()}
    state["exp_avg_sq"].abs_()
    before["exp_avg_sq"].abs_()
    work = {
        "batch_words": draw.packed(batch, -(-p // 32), dtype=torch.int32),
        "output": draw.packed(batch, c),
        "gradient": draw.packed(k),
        "row_losses": draw.packed(batch, dtype=torch.float64),
    }
    batch_x = draw.rows(batch, d + 1) if not along else None
    if along:
        work |= {"hidden": draw.packed(batch, p + d + 1), "hidden_grad": draw.packed(batch, p)}
        work["output_weights"] = draw.packed(p + d + 1, c)
        batch_x = work["hidden"][:, p:]
    work["batch_x"] = batch_x
    losses = draw.packed(1, dtype=torch.float64)

    def holds(_) -> None:
        rows = order
        parameters = before["parameters"].double().requires_grad_()
        z = torch.cat([x[rows].double(), torch.ones((len(rows), 1), dtype=torch.float64)], dim=1)
        on = bits[rows].double()
        if along:
            u, last = parameters[: (d + 1) * p].view(d + 1, p), parameters[(d + 1) * p :].view(d + 1, c)
            y = (on * (z @ u)) @ v.double() + z @ last
        else:
            y = torch.einsum("np,nd,pdc->nc", on, z, parameters.view(p, d + 1, c))
        sample = torch.ones(len(rows), dtype=torch.float64) if weight is None else weight[rows].double()
        if classes:
            loss = (sample * cross_entropy(y, targets[rows], reduction="none")).mean()
        else:
            loss = (sample * (y - targets[rows].double()).square().mean(1)).mean()
        (gradient,) = torch.autograd.grad(loss, parameters)
        close = 2e-4 if dtype == torch.float32 else 1e-9
        size = 1 + float(y.detach().abs().max()) ** 2
        assert abs(float(losses) - float(loss)) <= close * size * (1 + float(sample.abs().max()))
        got = {name: tensor.double() for name, tensor in state.items()}
        # As the first moment took it: where a step needs it once, the gradient itself is written nowhere.
        g = (got["exp_avg"] - BETAS[0] * before["exp_avg"].double()) / (1 - BETAS[0])
        worst = (g - gradient).abs().max() if k else 0.0
        assert worst <= close * size * (1 + float(gradient.abs().max()))
        expected = BETAS[1] * before["exp_avg_sq"].double() + (1 - BETAS[1]) * g * g
        assert torch.allclose(got["exp_avg_sq"], expected, rtol=close, atol=close)
        step = got["exp_avg"] / (1 - BETAS[0]) / ((got["exp_avg_sq"] / (1 - BETAS[1])).sqrt() + EPS)
        expected = before["parameters"].double() * (1 - 1e-3 * 0.01) - 1e-3 * step
        assert torch.allclose(got["parameters"], expected, rtol=close, atol=close)
        assert torch.allclose(got["mean"], got["parameters"], rtol=close, atol=close * 10)

    given = {"x": x, "words": words, "n_gates": p, "targets": targets, "sample_weight": weight}
    given |= {"order": order, "directions": v, **state, "step": 0, "averaged": 0, "learning_rate": 1e-3}
    given |= {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "weight_decay": 0.01, **work}
    given |= {"losses": losses, **draw.execution(stream=False)}
    written = (*state, *work, "losses")
    placed = (order, targets) if classes else (order,)
    return Call("train_steps", _native.train_steps, given, written, holds, placed)


def model_output(draw: Draw) -> Call:
    rng = draw.rng
    i, c = rng.choice((0, 1, 3, 8, 33)), rng.choice((0, 1, 2, 9, 33))
    centred, rotated, along = rng.random() < 0.6, rng.random() < 0.5, rng.random() < 0.5
    x = draw.matrix(draw.n, i)
    mean = scale = rotation = None
    d = i
    if centred:
        mean, scale = (
            draw.matrix(i),
            draw.memory.read(rng, (), (), rng.choice((torch.float32, torch.float64))),
        )
        if rotated:
            d = rng.choice((0, 1, 3, 8))
            rotation = draw.either(i, d)
    widths = [rng.choice((0, 1, 2, 5, 9)) for _ in range(rng.choice((1, 1, 2)))]
    layers, before = [], d
    for width in widths:
        layers.append((draw.either(width, before), draw.matrix(width)))
        before = width
    p = 1
    for width in widths:
        p *= width + 1
    weight, bias = (draw.either(p, d), draw.matrix(p)) if along else (draw.either(p, d, c), draw.matrix(p, c))
    v = (draw.either(p, c), draw.either(d, c), draw.matrix(c)) if along else (None, None, None)
    y = draw.rows(draw.n, c)

    def holds(_) -> None:
        z = x.double()
        if mean is not None:
            z = z - mean.double()
            z = (z if rotation is None else z @ rotation.double()) * scale.double()
        value, units, certain = z, [], torch.ones(draw.n, dtype=torch.bool)
        for w, b in layers:
            sure, on = firing(value.to(draw.dtype), w, b)
            certain &= sure.all(1)
            units.append(on)
            value = (value @ w.double().T + b.double()).clamp_min(0)
        g = ref.path_gates_ref(units)
        if along:
            expected = ref.gated_linear_ref(z, g, weight.double(), bias.double()) @ v[0].double()
            expected = expected + z @ v[1].double() + v[2].double()
            terms = (z.abs() @ weight.double().abs().T + bias.double().abs()) @ v[0].double().abs()
            terms = terms + z.abs() @ v[1].double().abs() + v[2].double().abs()
        else:
            expected = ref.gated_matmul_ref(z, g, weight.double(), bias.double())
            terms = ref.gated_matmul_ref(
                z.abs(), torch.ones_like(g), weight.double().abs(), bias.double().abs()
            )
        close = 1e-4 if draw.dtype == torch.float32 else 1e-11
        wrong = (y.double() - expected).abs() > close * (1 + terms) * (
            1 + z.abs().amax(1, keepdim=True) if d else 1
        )
        assert not wrong[certain].any()
        assert torch.isfinite(y).all()

    given = {"x": x, "mean": mean, "scale": scale, "rotation": rotation}
    given |= {"hidden_weights": [w for w, _ in layers], "hidden_biases": [b for _, b in layers]}
    given |= {"weight": weight, "bias": bias, "directions": v[0], "constant_weight": v[1]}
    given |= {"constant_bias": v[2], "y": y, **draw.execution(stream=False)}
    return Call("model_output", _native.model_output, given, ("y",), holds)


def structure_steps(draw: Draw) -> Call:
    rng, dtype = draw.rng, draw.dtype
    draw.n = max(draw.n, 1) if draw.n < 130 else 64
    d, c, classes = rng.choice((0, *WIDTHS)), rng.choice(WIDTHS), rng.random() < 0.5
    widths = [rng.choice((0, *WIDTHS)) for _ in range(rng.choice((1, 1, 2, 3)))]
    x, weight = draw.matrix(draw.n, d), draw.maybe(lambda: draw.matrix(draw.n))
    batch = rng.choice((1, 3, 8, 33))
    order = torch.tensor([rng.randrange(draw.n) for _ in range(rng.randint(1, batch))])
    order = draw.memory.place(rng, order)
    if classes:
        targets = draw.memory.place(rng, torch.tensor([rng.randrange(c) for _ in range(draw.n)]))
    else:
        targets = draw.matrix(draw.n, c)
    sizes = list(itertools.pairwise([d, *widths, c]))
    k = sum(out * (into + 1) for into, out in sizes)
    state = {name: draw.packed(k) for name in ("parameters", "exp_avg", "exp_avg_sq")}
    start = {name: draw.started(tensor) for name, tensor in state.items()}["parameters"].double()
    state["exp_avg_sq"].abs_()
    work = {
        "batch_x": draw.rows(batch, d),
        "hidden": [draw.rows(batch, width) for width in widths],
        "hidden_words": [draw.packed(batch, -(-width // 32), dtype=torch.int32) for width in widths],
        "output": draw.packed(batch, c),
        "gradient": draw.packed(k),
        "row_losses": draw.packed(batch, dtype=torch.float64),
    }
    losses = draw.packed(1, dtype=torch.float64)

    def holds(_) -> None:
        parameters = start.requires_grad_()
        value, size, begin, near = x[order].double(), 1.0, 0, False
        for number, (into, out) in enumerate(sizes):
            end = begin + into * out
            weights, biases = parameters[begin:end].view(out, into), parameters[end : end + out]
            value = (value.relu() if number else value) @ weights.T + biases
            begin = end + out
            seen = value.detach().abs()
            size = max([size, *seen.flatten().tolist()])
            near = near or bool((seen < 1e-4 * size).any())
        sample = torch.ones(len(order), dtype=torch.float64) if weight is None else weight[order].double()
        if classes:
            loss = (sample * cross_entropy(value, targets[order], reduction="none")).mean()
        else:
            loss = (sample * (value - targets[order].double()).square().mean(1)).mean()
        (gradient,) = torch.autograd.grad(loss, parameters)
        close = (2e-4 if dtype == torch.float32 else 1e-9) * size**2 * (1 + float(sample.abs().max()))
        assert abs(float(losses) - float(loss)) <= close
        if not near:  # or a unit may be on for the one and off for the other
            worst = (work["gradient"].double() - gradient).abs().max() if k else 0.0
            assert worst <= close * (1 + float(gradient.abs().max()))
        assert all(torch.isfinite(tensor).all() for tensor in state.values())

    given = {"x": x, "targets": targets, "sample_weight": weight, "order": order, **state, "step": 0}
    given |= {"learning_rate": 1e-3, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, **work}
    given |= {"losses": losses, **draw.execution(stream=False)}
    written = (*state, *work, "losses")
    placed = (order, targets) if classes else (order,)
    return Call("structure_steps", _native.structure_steps, given, written, holds, placed)


CALLS = (train_steps, structure_steps, model_output)
