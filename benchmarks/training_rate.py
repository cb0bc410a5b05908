"""Training Burda's one-layer VAE, batches of 20: our trainer, a bare loop and PyTorch.

All three do the same step: gather 20 images of uint8, binarise them anew, take the gradient of
IWAE-K by the reparameterisation, one step of Adam, add the bound to a running sum, and look
whether the loss is finite.

  trainer   `experiments.runtime.trainer.train`, in chunks as a run has them, between its first
            and its last call of `on_chunk`;
  bare      the same step in a hand-written, jitted `lax.scan`;
  PyTorch   the same network and densities written by hand, eager, torch.optim.Adam.

The trainer may take 5% longer than the bare loop, and must make at least 1.1 (K = 50) and 3 (K = 1)
times the steps of PyTorch: medians over runs in turns.
"""

import math
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bounds
from benchmarks.burda import NUM_PIXELS, make_problem
from benchmarks.steps import against_torch, of_trainer, per_step
from benchmarks.timing import NO_TORCH, Row, in_turns, ratio, version
from experiments.data import batches
from experiments.runtime import mesh, trainer

BATCH = 20
IMAGES = 5960
CHUNK = 298  # steps, as configs/train_mnist.py:short
ROUNDS = 5
STEPS = {1: 4 * CHUNK, 50: CHUNK}
LIMITS = {1: 3.0, 50: 1.1}


def run() -> list[Row]:
    vae, params, _ = make_problem()
    uint8 = np.random.default_rng(0).integers(0, 256, (IMAGES, NUM_PIXELS), np.uint8)
    dark = np.random.default_rng(1).random((IMAGES, NUM_PIXELS)) < 0.8
    images = np.where(dark, 0, uint8).astype(np.uint8)
    rows = []
    for num_samples, steps in STEPS.items():
        contestants = {
            "trainer": ours(vae, params, images, num_samples, steps),
            "bare": bare(vae, params, images, num_samples, steps),
        }
        if version("torch") != "not installed":
            contestants["PyTorch"] = pytorch(params, images, num_samples, steps)
        seconds = in_turns(contestants, rounds=ROUNDS)
        mine, least = (per_step(seconds, name, steps) for name in ("trainer", "bare"))
        rows.append(
            Row(
                f"training_rate: trainer / bare loop, time, K={num_samples}",
                ratio(seconds["trainer"], seconds["bare"]),
                high=1.05,
                detail=f"{mine} / {least} a step",
            )
        )
        name = f"training_rate: trainer / PyTorch, steps per second, K={num_samples}"
        rows.append(
            against_torch(name, seconds, steps, LIMITS[num_samples])
            if "PyTorch" in seconds
            else Row(name, None, detail=NO_TORCH)
        )
    return rows


def _stream(images: np.ndarray) -> trainer.Stream:
    return batches.image_stream(
        images,
        batches.binarize(256),
        jax.random.key(3),
        batch_size=BATCH,
        mesh=mesh.device_mesh(mesh.DATA),
    )


def ours(vae, params, images, num_samples: int, steps: int) -> Callable[[], float]:
    loss_fn = trainer.from_objective(bounds.pathwise(vae.model, num_samples=num_samples))
    stream, optimizer, key = _stream(images), optax.adam(1e-3), jax.random.key(4)
    return of_trainer(loss_fn, params, stream, optimizer, key, num_steps=steps, chunk=CHUNK)


def bare(vae, params, images, num_samples: int, steps: int) -> Callable[[], float]:
    objective = bounds.pathwise(vae.model, num_samples=num_samples)
    optimizer, stream = optax.adam(1e-3), _stream(images)
    data = stream.window(0, steps)
    batch_key, loss_key = jax.random.split(jax.random.key(4))

    def step(carry, t, data):
        params, moments, total, finite = carry
        batch = stream.batch(data, jax.random.fold_in(batch_key, t), t)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.fold_in(loss_key, t), batch["index"]
        )

        def loss(p):
            return -jnp.mean(jax.vmap(objective, (None, 0, 0))(p, keys, batch["x"]))

        value, grads = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(grads, moments, params)
        params = optax.apply_updates(params, updates)
        return (params, moments, total - value, finite & jnp.isfinite(value)), None

    @jax.jit
    def scan(params, moments, data):
        carry = (params, moments, 0.0, jnp.asarray(True))
        return jax.lax.scan(lambda c, t: step(c, t, data), carry, jnp.arange(steps))[0]

    def contest() -> float:
        start = time.perf_counter()
        jax.block_until_ready(scan(params, optimizer.init(params), data))
        return time.perf_counter() - start

    return contest


def pytorch(params, images, num_samples: int, steps: int) -> Callable[[], float]:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, linear

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(4)
    stored = torch.tensor(images)

    def layers(variables):
        """name -> (weight, bias) as leaves; Linen keeps its kernels transposed."""

        def leaf(array):
            return torch.tensor(np.asarray(array).copy(), requires_grad=True)

        return {n: (leaf(v["kernel"].T), leaf(v["bias"])) for n, v in variables["params"].items()}

    phi, theta = layers(params.phi[0]), layers(params.theta[0])
    leaves = [leaf for net in (phi, theta) for pair in net.values() for leaf in pair]
    optimizer = torch.optim.Adam(leaves, lr=1e-3)

    def trunk(net, value):
        for name in ("hidden_0", "hidden_1"):
            value = torch.tanh(linear(value, *net[name]))
        return value

    def gaussian_log_prob(value, mean, log_scale):
        return -0.5 * (
            ((value - mean) / log_scale.exp()).square() + 2 * log_scale + math.log(2 * math.pi)
        ).sum(-1)

    def loss_of(x):
        h = trunk(phi, x)
        mean, log_scale = linear(h, *phi["mean"])[:, None], linear(h, *phi["log_scale"])[:, None]
        z = mean + log_scale.exp() * torch.randn(len(x), num_samples, mean.shape[-1])
        logits = linear(trunk(theta, z), *theta["outputs"])
        pixels = x[:, None].expand_as(logits)
        log_px = -binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(-1)
        log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
        log_w = log_px + log_prior - gaussian_log_prob(z, mean, log_scale)
        return -(torch.logsumexp(log_w, dim=1) - math.log(num_samples)).mean()

    def contest() -> float:
        start = time.perf_counter()
        total = torch.zeros(())
        for number in range(steps):
            first = number * BATCH % IMAGES
            if first == 0:
                order = torch.randperm(IMAGES)
            x = torch.bernoulli(stored[order[first : first + BATCH]].float() / 255)
            loss = loss_of(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total -= loss.detach()
            if not torch.isfinite(loss):
                raise FloatingPointError(f"step {number}")
        return time.perf_counter() - start

    return contest
