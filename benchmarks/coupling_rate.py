"""Training a flow of mixture couplings on digits, batches of 128: our trainer against PyTorch.

Both take the same step: gather 128 images of uint8, dequantize them uniformly, take the gradient of
log p through six couplings by mixtures of eight logistics with perceptrons of two layers and
dropout, and one step of Adam. The PyTorch flow is written by hand in log space as ours is, eager,
and must give the same log-density before either is timed.

The trainer must make at least as many steps a second: medians over runs in turns.
"""

import os
import time
from collections.abc import Callable

import jax
import numpy as np
import optax

from benchmarks.steps import against_torch, of_trainer
from benchmarks.timing import NO_TORCH, Row, in_turns, version
from configs import dequantize_digits
from experiments.dequantize import build, training
from experiments.dequantize.settings import Dequantize, OfModel
from experiments.runtime import settings
from experiments.studies.images import as_images, make_problem

MODEL = "mixture_uniform"
STEPS = 40
ROUNDS = 5


def run() -> list[Row]:
    name = "coupling_rate: trainer / PyTorch, steps per second"
    if version("torch") == "not installed":
        return [Row(name, None, detail=NO_TORCH)]
    own = settings.parse(Dequantize, dequantize_digits.get_config()).of_model(MODEL)
    problem = make_problem(own.data.name, "")
    model = build.make_model(problem, own)
    params = training.make_run(problem, model, own, 0).init()
    contestants = {
        "trainer": ours(problem, model, own),
        "PyTorch": pytorch(problem, model, params, own),
    }
    seconds = in_turns(contestants, rounds=ROUNDS)
    return [against_torch(name, seconds, STEPS, 1.0)]


def ours(problem, model, trained: OfModel) -> Callable[[], float]:
    run = training.make_run(problem, model, trained, 0)
    optimizer = optax.adam(trained.optimizer.learning_rate)
    return of_trainer(
        run.loss_fn, run.init(), run.stream, optimizer, run.key, num_steps=STEPS, chunk=STEPS
    )


def pytorch(problem, model, params, trained: OfModel) -> Callable[[], float]:
    import torch
    from torch.nn.functional import dropout, linear, silu

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(4)
    shape, batch_size = trained.model, trained.training.batch_size
    components, levels = shape.num_components, problem.levels
    factors = torch.linspace(0.5, 1.5, components)
    assert shape.layout == ("checkerboard:4", "squeeze", "channels:2")
    before = 4
    assert shape.norm == "channel"
    assert not shape.pointwise

    def leaf(array):
        return torch.tensor(np.asarray(array).copy(), requires_grad=True)

    names = *(f"hidden_{i}" for i in range(shape.num_layers)), "outputs"
    steps = []  # of each coupling: its norm and its layers
    for norms, nets in filter(None, params.theta):
        for i in range(len(norms.mean)):
            layers = [nets["params"][name] for name in names]
            steps.append((
                (leaf(norms.mean[i]), leaf(norms.log_sd[i])),
                [(leaf(v["kernel"][i].T), leaf(v["bias"][i])) for v in layers],
            ))  # fmt: skip
    leaves = [v for norm, layers in steps for v in (*norm, *sum(layers, ()))]
    optimizer = torch.optim.Adam(leaves, lr=trained.optimizer.learning_rate)

    def take(z, by_color):
        if not by_color:
            return z.chunk(2, dim=-1)
        even = (torch.arange(z.shape[1]) % 2 == 0)[:, None, None]
        left, right = z[:, :, 0::2], z[:, :, 1::2]
        return torch.where(even, left, right), torch.where(even, right, left)

    def join(a, b, by_color):
        if not by_color:
            return torch.cat([a, b], dim=-1)
        even = (torch.arange(a.shape[1]) % 2 == 0)[:, None, None]
        pair = torch.stack([torch.where(even, a, b), torch.where(even, b, a)], dim=3)
        return pair.reshape(len(a), a.shape[1], -1, a.shape[3])

    def couple(net, a, b, rate):
        h = a.reshape(len(a), -1)
        for weight, bias in net[:-1]:
            h = (
                dropout(silu(linear(h, weight, bias)), rate)
                if rate
                else silu(linear(h, weight, bias))
            )
        out = linear(h, *net[-1]).reshape(*b.shape, 2 + 3 * components)
        scale, shift = torch.tanh(out[..., 0]), out[..., 1]
        logits, means, log_scales = (v * factors for v in out[..., 2:].chunk(3, dim=-1))
        log_scales, log_pi = log_scales.clamp(min=-7), torch.log_softmax(logits, -1)
        t = (b[..., None] - means) * torch.exp(-log_scales)
        rest = torch.log1p(torch.exp(-t.abs()))
        below, above = t.clamp(max=0) - rest, (-t).clamp(max=0) - rest
        log_cdf = torch.logsumexp(log_pi + below, -1)
        log_rest = torch.logsumexp(log_pi + above, -1)
        log_pdf = torch.logsumexp(log_pi - log_scales + below + above, -1)
        y = (log_cdf - log_rest) * torch.exp(scale) + shift
        return y, (log_pdf - log_cdf - log_rest + scale).flatten(1).sum(1)

    def log_density(y, rate):
        v = 0.05 + 0.9 / levels * y
        z = torch.log(v) - torch.log1p(-v)
        total = -(torch.log(v) + torch.log1p(-v)).flatten(1).sum(1)
        total = total + z[0].numel() * np.log(0.9 / levels)
        for number, ((mean, log_sd), net) in enumerate(steps):
            by_color = number < before
            if number == before:  # space to depth
                n, height, width, count = z.shape
                z = z.reshape(n, height // 2, 2, width // 2, 2, count)
                z = z.permute(0, 1, 3, 2, 4, 5).reshape(n, height // 2, width // 2, -1)
            z = (z - mean) * torch.exp(-log_sd)
            total = total - log_sd.sum() * (z[0].numel() // log_sd.numel())
            a, b = take(z, by_color)
            odd = (number if by_color else number - before) % 2
            a, b = (b, a) if odd else (a, b)
            b, log_slope = couple(net, a, b, rate)
            total = total + log_slope
            z = join(*((b, a) if odd else (a, b)), by_color)
        return total - 0.5 * (z.square() + np.log(2 * np.pi)).flatten(1).sum(1)

    images = as_images(problem.dataset.train)
    u = np.random.default_rng(0).random(images[:8].shape, np.float32)
    wanted = jax.vmap(model.density.log_density, (None, 0, 0))(params.theta, images[:8], u)
    found = log_density(torch.tensor(images[:8] + u), 0.0)
    np.testing.assert_allclose(found.detach().numpy(), np.asarray(wanted), rtol=1e-3)
    stored = torch.tensor(problem.dataset.train)[..., None]

    def contest() -> float:
        start = time.perf_counter()
        order = torch.randperm(len(stored))
        for number in range(STEPS):
            first = number * batch_size % (len(stored) - batch_size)
            x = stored[order[first : first + batch_size]].float()
            loss = -log_density(x + torch.rand(x.shape), shape.dropout).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not torch.isfinite(loss):
                raise FloatingPointError(f"step {number}")
        return time.perf_counter() - start

    return contest
