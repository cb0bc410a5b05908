"""Training the U-Net of the digits' diffusion model, batches of 32: our trainer against PyTorch.

Both take the same step: gather images of uint8, draw a time of each by low discrepancy and noise,
take the gradient of VDM's loss in continuous time through the U-Net with Fourier features,
attention and dropout, clip it to a norm, and one step of Adam. The PyTorch network is written by
hand with its own convolutions, group norms and attention, eager, and must predict the same v
before either is timed.

The trainer must make at least as many steps a second: medians over runs in turns.
"""

import math
import os
import time
from collections.abc import Callable

import jax
import numpy as np
import optax

from benchmarks.steps import against_torch, of_trainer
from benchmarks.timing import NO_TORCH, Row, in_turns, version
from configs import diffusion_digits
from experiments.diffusion import build, training
from experiments.diffusion.settings import Diffusion, Trained
from experiments.runtime import settings
from experiments.studies import images
from experiments.studies.settings import Optimizer

STEPS = 20
ROUNDS = 5


def run() -> list[Row]:
    name = "denoising_rate: trainer / PyTorch, steps per second"
    if version("torch") == "not installed":
        return [Row(name, None, detail=NO_TORCH)]
    own = settings.parse(Diffusion, diffusion_digits.get_config()).of_model("vdm")
    problem = images.make_problem(own.data.name, "")
    model = build.make_model(problem, own)
    contestants = {"trainer": ours(problem, model, own), "PyTorch": pytorch(problem, model, own)}
    seconds = in_turns(contestants, rounds=ROUNDS)
    return [against_torch(name, seconds, STEPS, 1.0)]


def adam(wanted: Optimizer) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(wanted.clip_norm), optax.adam(wanted.learning_rate)
    )


def ours(problem, model, trained: Trained) -> Callable[[], float]:
    run = training.make_run(problem, model, trained, 0)
    optimizer = adam(trained.optimizer)
    return of_trainer(
        run.loss_fn, run.init(), run.stream, optimizer, run.key, num_steps=STEPS, chunk=STEPS
    )


def pytorch(problem, model, trained: Trained) -> Callable[[], float]:
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(4)
    chain, network = trained.chain, trained.network
    assert (network.multipliers, network.num_blocks, network.attention) == ((1, 2), 1, (1,))
    assert chain.prediction == "v"
    theta = model.init(jax.random.key(0))["network"]["params"]
    # Layers that start at zero would hide what stands before them.
    rng = np.random.default_rng(0)
    theta = jax.tree.map(
        lambda v: np.asarray(v) + 0.05 * rng.normal(size=v.shape).astype("f"), theta
    )

    def leaf(array):
        return torch.tensor(np.ascontiguousarray(array), requires_grad=True)

    def layer(values):
        kernel = values.get("kernel", values.get("scale"))
        order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[kernel.ndim]
        return leaf(kernel.transpose(order)), leaf(values["bias"])

    def convert(tree):
        if "bias" in tree:
            return layer(tree)
        return {name: convert(branch) for name, branch in tree.items()}

    net = convert(theta)
    leaves: list = []

    def collect(tree):
        for branch in tree.values():
            leaves.extend(branch) if isinstance(branch, tuple) else collect(branch)

    collect(net)
    optimizer = torch.optim.Adam(leaves, lr=trained.optimizer.learning_rate)
    low, high, levels = chain.gamma_min, chain.gamma_max, problem.levels

    def embed(gamma, width):
        rates = torch.exp(-torch.linspace(math.log(0.1), math.log(100.0), width // 2))
        phase = gamma[:, None] * rates
        return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)

    def norm(x, scale, bias):
        return F.group_norm(x, x.shape[1] // 8, scale, bias, eps=1e-6)

    def conv(x, layer, stride=1):
        return F.conv2d(x, *layer, stride=stride, padding=1)

    def block(x, emb, name, rate):
        own = net[name]
        h = conv(F.silu(norm(x, *own["norm_in"])), own["first"])
        h = h + F.linear(emb, *own["time"])[:, :, None, None]
        h = conv(F.dropout(F.silu(norm(h, *own["norm"])), rate), own["second"])
        if "skip" in own:
            weight, bias = own["skip"]
            x = F.conv2d(x, weight[:, :, None, None], bias)
        x = x + h
        return attend(x, f"{name}_attention") if f"{name}_attention" in net else x

    def attend(x, name):
        own, (n, c, height, width) = net[name], x.shape
        flat = norm(x, *own["norm"]).flatten(2).transpose(1, 2)
        q, k, v = F.linear(flat, *own["qkv"]).chunk(3, dim=-1)
        out = F.linear(F.scaled_dot_product_attention(q, k, v), *own["out"])
        return x + out.transpose(1, 2).reshape(n, c, height, width)

    def predict(x, gamma, rate):
        features = [x]
        for power in network.fourier:
            features += [torch.sin(2**power * math.pi * x), torch.cos(2**power * math.pi * x)]
        emb = F.silu(F.linear(embed(gamma, network.width), *net["time_in"]))
        emb = F.silu(F.linear(emb, *net["time_out"]))
        first = conv(torch.cat(features, dim=1), net["in"])
        fine = block(first, emb, "down_0_0", rate)
        halved = conv(fine, net["halve_0"], stride=2)
        coarse = block(halved, emb, "down_1_0", rate)
        h = attend(block(coarse, emb, "middle_0", rate), "middle_attention")
        h = block(h, emb, "middle_1", rate)
        h = block(torch.cat([h, coarse], dim=1), emb, "up_1_0", rate)
        h = block(torch.cat([h, halved], dim=1), emb, "up_1_1", rate)
        h = conv(F.interpolate(h, scale_factor=2.0), net["double_1"])
        h = block(torch.cat([h, fine], dim=1), emb, "up_0_0", rate)
        h = block(torch.cat([h, first], dim=1), emb, "up_0_1", rate)
        return conv(F.silu(norm(h, *net["norm"])), net["out"])

    x_t = rng.normal(size=(4, *problem.shape)).astype(np.float32)
    gamma = np.linspace(low, high, 4).astype(np.float32)
    denoise = model.make({"schedule": ()}, None, 0).model.denoise
    params = {"network": {"params": theta}, "schedule": ()}
    wanted, _ = jax.vmap(denoise, (None, 0, 0, 0))(params, x_t, gamma, gamma)
    alpha, sigma = (np.sqrt(1 / (1 + np.exp(s * gamma)))[:, None, None, None] for s in (1, -1))
    found = predict(torch.tensor(x_t.transpose(0, 3, 1, 2)), torch.tensor(gamma), 0.0)
    x_hat = alpha * x_t - sigma * found.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(x_hat, np.asarray(wanted), atol=2e-3)
    stored = torch.tensor(problem.dataset.train)[:, None]

    def contest() -> float:
        start = time.perf_counter()
        order = torch.randperm(len(stored))
        count = trained.training.batch_size
        for number in range(STEPS):
            first = number * count % (len(stored) - count)
            x = stored[order[first : first + count]].float() * (2 / (levels - 1)) - 1
            times = (torch.rand(()) + torch.arange(count) / count) % 1.0
            gamma = low + (high - low) * times
            alpha, sigma = (
                torch.sqrt(torch.sigmoid(s * gamma))[:, None, None, None] for s in (-1, 1)
            )
            x_t = alpha * x + sigma * torch.randn(x.shape)
            x_hat = alpha * x_t - sigma * predict(x_t, gamma, network.dropout)
            errors = (x - x_hat).square().sum(dim=(1, 2, 3))
            loss = (0.5 * (high - low) * torch.exp(-gamma) * errors).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(leaves, trained.optimizer.clip_norm)
            optimizer.step()
        if not torch.isfinite(loss):
            raise FloatingPointError
        return time.perf_counter() - start

    return contest
