"""From settings to a model of images of integers: density and noise."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.dequantize import settings
from experiments.dequantize.settings import Trained
from experiments.runtime.errors import UserError
from experiments.studies.images import Problem
from models import autoregressive, conditioners, elementwise, flows, noise

COUPLINGS: dict[str, Callable[..., elementwise.Elementwise]] = {
    "affine": lambda num_components, *, recompute: elementwise.affine(),
    "mixture": elementwise.mixture,
}


class Density(NamedTuple):
    """A model of the images of a `Problem`.

    Attributes:
      init: (key, x [N, ...]) -> theta, from training images.
      log_density: (theta, x, u, dropout key or None) -> log p(x + u); None for a model of integers
        alone.
      log_prob: (theta, x, dropout key or None) -> exact log P(x), or None.
      simulate: (theta, key) -> an image of integers.
      round_trip: (theta, x + u) -> its image after the flow and its inverse; None without a flow.
      simulate_cell: (theta, key) -> (an image of integers, v = logit(u) of the u drawn with it);
        None without a flow.
    """

    init: Callable[[Array, Array], PyTree]
    log_density: Callable[..., Array] | None
    log_prob: Callable[..., Array] | None
    simulate: Callable[[PyTree, Array], Array]
    round_trip: Callable[[PyTree, Array], Array] | None
    simulate_cell: Callable[[PyTree, Array], tuple[Array, Array]] | None = None


class Model(NamedTuple):
    """A density and the noise it is trained with."""

    density: Density
    noise: noise.LearnedNoise

    def init(self, key: Array, x: Array) -> bounds.Params:
        """Parameters before the first step, from training images [N, ...]."""
        first, second = jax.random.split(key)
        params = bounds.Params(self.density.init(first, x), self.noise.init(second, x[0]))
        return jax.tree.map(lambda leaf: leaf.astype(float), params)

    def latent(self, dropout: Any = None, *, noise_only: bool = False) -> bounds.LatentModel:
        """The latent-variable model of its noise; without dropout where there is no key.

        Args:
          dropout: PRNG key of one datum, or None.
          noise_only: whether the key is for the noise alone, and not for the density.
        """
        assert self.density.log_density is not None
        log_density = functools.partial(
            self.density.log_density, dropout=None if noise_only else dropout
        )
        return bounds.dequantization.dequantized(log_density, self.noise.make(dropout))


def make_model(problem: Problem, trained: Trained) -> Model:
    """The density and the noise.

    Raises:
      UserError: a size does not fit the images.
    """
    try:  # sizes that do not fit raise when shapes are evaluated
        made = Model(
            DENSITIES[trained.model.density](problem, trained.model),
            NOISES[trained.noise.name](problem, trained),
        )
        x = jax.ShapeDtypeStruct((2, *problem.shape), jnp.float32)
        jax.eval_shape(made.init, jax.random.key(0), x)
    except ValueError as error:
        raise UserError(f"images of shape {problem.shape} do not fit this model: {error}") from None
    return made


def _network(
    kind: str, size: settings.Model | settings.Noise, index: int, dropout: float, last: float
):
    """A conditioner: a perceptron, or convolutions with `width` filters and `num_layers` blocks."""
    if kind == "dense":
        hidden = (size.width,) * size.num_layers
        return conditioners.dense(hidden, index=index, dropout=dropout, last_scale=last)
    return conditioners.convolutional(
        size.width,
        size.num_layers,
        index=index,
        dropout=dropout,
        attention=size.attention,
        last_scale=last,
    )


def _transform(size: settings.Model | settings.Noise, network: str) -> elementwise.Elementwise:
    # Beside convolutions the time to make the components again does not show, but their memory.
    recompute = network == "convolutional"
    return COUPLINGS[size.coupling](size.num_components, recompute=recompute)


def _flow(problem: Problem, wanted: settings.Model) -> Density:
    flow = flows.image_flow(
        problem.levels,
        _transform(wanted, wanted.network),
        lambda index: _network(wanted.network, wanted, index, wanted.dropout, 0.1),
        layout=wanted.layout,
        pointwise=wanted.pointwise,
        norm=wanted.norm,
        unroll=wanted.network == "dense",
    )
    whole = flows.density(flow)
    squeezes = wanted.layout.count("squeeze")
    height, width, channels = problem.shape
    latent = (height >> squeezes, width >> squeezes, channels << (2 * squeezes))

    def init(key, x):
        noise_key, key = jax.random.split(key)
        return whole.init(key, x + jax.random.uniform(noise_key, x.shape))

    def simulate_cell(theta, key):
        y = whole.generate(theta, jax.random.normal(key, latent))
        # Floor, as cells are [x, x + 1); NaN, which marks an inverse that failed, stays NaN.
        x = jnp.clip(jnp.floor(y), 0, problem.levels - 1)
        step = jnp.finfo(y.dtype).eps  # y may round to an end of its cell
        u = jnp.clip(y - x, step, 1 - step)
        return x, jnp.log(u) - jnp.log1p(-u)

    return Density(
        init,
        lambda theta, x, u, dropout=None: whole.log_density(theta, x + u, dropout),
        None,
        lambda theta, key: simulate_cell(theta, key)[0],
        lambda theta, y: whole.generate(theta, whole.transform(theta, y)),
        simulate_cell,
    )


def _autoregressive(kind: Callable[..., autoregressive.Autoregressive]):
    def make(problem: Problem, wanted: settings.Model) -> Density:
        size = int(np.prod(problem.shape))
        model = kind(
            size,
            problem.levels,
            hidden=(wanted.width,) * wanted.num_layers,
            num_components=wanted.num_components,
            dropout=wanted.dropout,
        )
        flat = problem.dataset.train.reshape(len(problem.dataset.train), -1)
        mean = flat.mean(0, dtype=np.float64).astype(np.float32)
        deviation = flat.std(0, dtype=np.float64).astype(np.float32)
        log_density = model.log_density
        return Density(
            lambda key, x: model.init(key, jnp.asarray(mean), jnp.asarray(deviation)),
            None
            if log_density is None
            else (
                lambda theta, x, u, dropout=None: log_density(
                    theta, x.reshape(-1), u.reshape(-1), dropout
                )
            ),
            lambda theta, x, dropout=None: model.log_prob(theta, x.reshape(-1), dropout),
            lambda theta, key: model.simulate(theta, key).reshape(problem.shape),
            None,
        )

    return make


DENSITIES: dict[str, Callable[[Problem, settings.Model], Density]] = {
    "flow": _flow,
    "subset_flow": _autoregressive(autoregressive.subset_flow),
    "discretized": _autoregressive(autoregressive.discretized),
}


def _noise_network(trained: Trained, index: int):
    # Far from the indices of the density's couplings, whose dropout key this shares.
    density = trained.model
    return _network(density.network, trained.noise, 200 + index, density.dropout, 0.0)


def _flow_noise(problem: Problem, trained: Trained) -> noise.LearnedNoise:
    wanted = trained.noise
    return noise.image_noise(
        problem.levels,
        _transform(wanted, trained.model.network),
        lambda index: _noise_network(trained, index),
        num_couplings=wanted.num_couplings,
        feature_filters=wanted.num_features,
        feature_blocks=wanted.num_feature_blocks,
        norm=wanted.norm,
        pointwise=wanted.pointwise,
        dropout=trained.model.dropout,
        unroll=trained.model.network == "dense",
    )


def _diagonal_noise(base: str):
    return lambda problem, trained: noise.diagonal_noise(
        problem.levels, _noise_network(trained, 0), base=base
    )


NOISES: dict[str, Callable[[Problem, Trained], noise.LearnedNoise]] = {
    "uniform": lambda problem, trained: noise.uniform_noise(),
    "logistic": _diagonal_noise("logistic"),
    "normal": _diagonal_noise("normal"),
    "flow": _flow_noise,
    "autoregressive": lambda problem, trained: noise.autoregressive_noise(
        problem.levels, (trained.noise.width,) * trained.noise.num_layers
    ),
}
