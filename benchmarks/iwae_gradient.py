"""One IWAE gradient of Burda's one-layer VAE, K = 50, batch 100, beside PyTorch and NumPyro.

All three compute the value -mean over the batch of log (1/K) sum_k w_k, the log-sum-exp taken for
each image, and its pathwise gradient in every weight, from the same weights and images in float32
with fresh noise at every call, on all cores of the CPU:

  ours     jitted value_and_grad of `bounds.pathwise`, the whole batch at once, and as
           `--config.objective.images_at_once=20` has it, in parts that fit a CPU's cache;
  PyTorch  the same network written by hand, eager, binary_cross_entropy_with_logits, log q in
           closed form in the noise, logsumexp, torch.autograd.grad;
  NumPyro  jitted value_and_grad of RenyiELBO(alpha=0, num_particles=K).loss, our Linen networks
           inside the model and the guide. Every site stands in one plate over the images: without
           it RenyiELBO would sum the log-weights over the batch before its log-sum-exp. Its loss
           is the sum over the plate; it is divided by the batch.

That they compute the same quantity is checked: the difference of values averaged over draws, in
its standard errors, has a limit of 4 (a false alarm in 16,000 runs).
"""

import math
import os
import statistics
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bounds
from benchmarks.burda import NUM_PIXELS, Problem, batch_loss, make_problem
from benchmarks.timing import NO_TORCH, Row, interleaved, ratio, version
from experiments.runtime import trainer
from models.vae import BURDA_ONE_LAYER, GaussianNet, PixelNet

NUM_SAMPLES = 50
AT_ONCE = 20
LIMITS = {"PyTorch": 1 / 1.5, "NumPyro": 0.8}  # of the parts
ROUNDS = 7
VALUE_DRAWS = 12


class Contestant(NamedTuple):
    """`step()` computes a loss and its gradient with fresh noise; `value` reads the loss."""

    step: Callable[[], tuple]
    value: Callable[[tuple], float]


def run() -> list[Row]:
    names = {"torch": "PyTorch", "numpyro": "NumPyro"}
    if jax.default_backend() != "cpu":
        reason = "compares CPUs, and JAX runs elsewhere: set JAX_PLATFORMS=cpu"
        return [Row(f"iwae_gradient: ours / {n}", None, detail=reason) for n in names.values()]
    problem = make_problem()
    ours = {"ours": whole(problem), f"ours, {AT_ONCE} images at once": parts(problem)}
    contestants, missing = dict(ours), []
    for package, build in {"torch": pytorch, "numpyro": numpyro_renyi}.items():
        if version(package) == "not installed":
            missing.append(package)
        else:
            contestants[package] = build(problem)
    seconds = interleaved({name: c.step for name, c in contestants.items()}, rounds=ROUNDS)
    values = {
        name: [c.value(c.step()) for _ in range(VALUE_DRAWS)] for name, c in contestants.items()
    }

    rows = []
    for package, peer in names.items():
        of = f"{peer}, K={NUM_SAMPLES} batch {len(problem.images)}"
        if package in missing:
            rows.append(Row(f"iwae_gradient: ours / {of}", None, detail=NO_TORCH))
            continue
        for mine in ours:
            milli = [f"{1e3 * statistics.median(seconds[n]):.0f} ms" for n in (mine, package)]
            detail = f"{' / '.join(milli)}, {peer} {version(package)}"
            high = None if mine == "ours" else LIMITS[peer]
            time = ratio(seconds[mine], seconds[package])
            rows.append(Row(f"iwae_gradient: {mine} / {of}", time, high=high, detail=detail))
            rows.append(same_value(mine, peer, values[mine], values[package]))
    return rows


def same_value(mine: str, peer: str, values: list[float], theirs: list[float]) -> Row:
    a, b = np.asarray(values), np.asarray(theirs)
    error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return Row(
        f"iwae_gradient: |value of {mine} - {peer}'s|",
        abs(float(a.mean() - b.mean())) / error,
        high=4.0,
        unit="standard errors",
        detail=f"{a.mean():.4f} and {b.mean():.4f} nats, standard error {error:.4f}",
    )


def fresh_keys(seed: int) -> Callable[[], jax.Array]:
    """A function that returns another PRNG key at every call."""
    keys = iter(jax.random.split(jax.random.key(seed), 1000))
    return lambda: next(keys)


def parts(problem: Problem) -> Contestant:
    objective = bounds.pathwise(problem.vae.model, num_samples=NUM_SAMPLES)
    loss, key = trainer.from_objective(objective, at_once=AT_ONCE), fresh_keys(5)
    batch = {"x": problem.images, "index": jnp.arange(len(problem.images))}
    step = jax.jit(jax.value_and_grad(lambda p, k: loss(p, (), batch, k, jnp.asarray(0))[0]))
    return Contestant(lambda: step(problem.params, key()), lambda out: float(out[0]))


def whole(problem: Problem) -> Contestant:
    objective = bounds.pathwise(problem.vae.model, num_samples=NUM_SAMPLES)
    step = jax.jit(jax.value_and_grad(lambda p, k, x: batch_loss(objective, p, k, x)))
    key = fresh_keys(2)
    return Contestant(
        lambda: step(problem.params, key(), problem.images), lambda out: float(out[0])
    )


def numpyro_renyi(problem: Problem) -> Contestant:
    import numpyro
    from numpyro import distributions as dist

    (num_latents,), (hidden,) = BURDA_ONE_LAYER["latents"], BURDA_ONE_LAYER["hidden"]
    encoder, decoder = GaussianNet(hidden, num_latents), PixelNet(hidden, NUM_PIXELS)
    batch = len(problem.images)

    def model(images):
        theta = numpyro.param("theta", problem.params.theta[0])
        with numpyro.plate("images", batch):
            prior = dist.Normal(jnp.zeros(num_latents), 1.0).to_event(1)
            logits = decoder.apply(theta, numpyro.sample("z", prior))[..., 0]
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=images)

    def guide(images):
        phi = numpyro.param("phi", problem.params.phi[0])
        with numpyro.plate("images", batch):
            mean, log_scale = encoder.apply(phi, images)
            numpyro.sample("z", dist.Normal(mean, jnp.exp(log_scale)).to_event(1))

    renyi = numpyro.infer.RenyiELBO(alpha=0, num_particles=NUM_SAMPLES)

    def loss(params, key, images):
        return renyi.loss(key, params, model, guide, images) / batch

    params = {"theta": problem.params.theta[0], "phi": problem.params.phi[0]}
    step, key = jax.jit(jax.value_and_grad(loss)), fresh_keys(3)
    return Contestant(lambda: step(params, key(), problem.images), lambda out: float(out[0]))


def pytorch(problem: Problem) -> Contestant:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, linear

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(4)
    images = torch.tensor(np.asarray(problem.images))

    def layers(variables):
        """name -> (weight, bias) as leaves; Linen keeps its kernels transposed."""

        def leaf(array):
            return torch.tensor(np.asarray(array).copy(), requires_grad=True)

        return {n: (leaf(v["kernel"].T), leaf(v["bias"])) for n, v in variables["params"].items()}

    phi, theta = layers(problem.params.phi[0]), layers(problem.params.theta[0])
    leaves = [leaf for net in (phi, theta) for pair in net.values() for leaf in pair]

    def trunk(net, value):
        for name in ("hidden_0", "hidden_1"):
            value = torch.tanh(linear(value, *net[name]))
        return value

    def step():
        h = trunk(phi, images)
        mean, log_scale = linear(h, *phi["mean"]), linear(h, *phi["log_scale"])
        noise = torch.randn(len(images), NUM_SAMPLES, mean.shape[-1])
        z = mean[:, None] + torch.exp(log_scale)[:, None] * noise
        logits = linear(trunk(theta, z), *theta["outputs"])
        pixels = images[:, None].expand_as(logits)
        log_px = -binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(-1)
        # The constants of log p(z) and log q(z|x) cancel.
        log_prior = -0.5 * z.square().sum(-1)
        log_q = -0.5 * noise.square().sum(-1) - log_scale.sum(-1)[:, None]
        log_w = log_px + log_prior - log_q
        loss = -(torch.logsumexp(log_w, dim=1) - math.log(NUM_SAMPLES)).mean()
        return loss.detach(), torch.autograd.grad(loss, leaves)

    return Contestant(step, lambda out: out[0].item())
