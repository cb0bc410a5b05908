"""From a config to a model of images of integers: density and noise."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.runtime import checks
from experiments.runtime.checks import known
from experiments.runtime.errors import UserError
from experiments.studies.images import Problem
from models import autoregressive, conditioners, elementwise, flows, noise

COUPLINGS: dict[str, Callable[[int], elementwise.Elementwise]] = {
    "affine": lambda num_components: elementwise.affine(),
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
      round_trip: (theta, x + u) -> what is left of it after the flow and back; None without one.
    """

    init: Callable[[Array, Array], PyTree]
    log_density: Callable[..., Array] | None
    log_prob: Callable[..., Array] | None
    simulate: Callable[[PyTree, Array], Array]
    round_trip: Callable[[PyTree, Array], Array] | None


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
        return bounds.dequantized(log_density, self.noise.make(dropout))


def make_model(problem: Problem, config: Any) -> Model:
    """The density and the noise of a config.

    Raises:
      UserError: a name or a size in the config is wrong, or does not fit the images.
    """
    widths = ("width", "num_components", "noise_width", "noise_components")
    checks.whole(config, 1, *widths, most=checks.WIDTH)
    checks.whole(config, 1, "num_layers", "noise_layers", most=checks.LAYERS)
    checks.whole(config, 0, "noise_features", most=checks.WIDTH)
    checks.whole(config, 0, "noise_feature_blocks", "noise_couplings", most=checks.LAYERS)
    if not checks.is_number(config.dropout) or not 0 <= config.dropout < 1:
        raise UserError(f"config.dropout must be in [0, 1), got {config.dropout}.")
    known(config, "network", NETWORKS)
    known(config, "coupling", COUPLINGS)
    known(config, "noise_coupling", COUPLINGS)
    make_density = known(config, "density", DENSITIES)
    make_noise = known(config, "noise", NOISES)
    if not all(isinstance(stage, str) for stage in config.layout):
        raise UserError(f"config.layout must hold words like 'squeeze', got {config.layout}.")
    try:  # sizes that do not fit show where shapes are followed through
        made = Model(make_density(problem, config), make_noise(problem, config))
        x = jax.ShapeDtypeStruct((2, *problem.shape), jnp.float32)
        jax.eval_shape(made.init, jax.random.key(0), x)
    except ValueError as error:
        raise UserError(f"images of shape {problem.shape} do not fit this model: {error}") from None
    return made


def _dense(width: int, num_layers: int, index: int, config: Any, last: float):
    hidden = (width,) * num_layers
    return conditioners.dense(hidden, index=index, dropout=config.dropout, last_scale=last)


def _convolutional(width: int, num_layers: int, index: int, config: Any, last: float):
    attention = config.attention if last else config.noise_attention
    return conditioners.convolutional(
        width, num_layers, index=index, dropout=config.dropout, attention=attention,
        last_scale=last,
    )  # fmt: skip


# width and num_layers are those of a perceptron, or filters and blocks of convolutions.
NETWORKS = {"dense": _dense, "convolutional": _convolutional}


def _flow(problem: Problem, config: Any) -> Density:
    known(config, "norm", flows.NORMS)
    network = NETWORKS[config.network]
    flow = flows.image_flow(
        problem.levels,
        COUPLINGS[config.coupling](config.num_components),
        lambda index: network(config.width, config.num_layers, index, config, 0.1),
        layout=config.layout,
        pointwise=config.pointwise,
        norm=config.norm,
    )
    whole = flows.density(flow)
    squeezes = tuple(config.layout).count("squeeze")
    height, width, channels = problem.shape
    latent = (height >> squeezes, width >> squeezes, channels << (2 * squeezes))

    def init(key, x):
        noise_key, key = jax.random.split(key)
        return whole.init(key, x + jax.random.uniform(noise_key, x.shape))

    def simulate(theta, key):
        y = whole.generate(theta, jax.random.normal(key, latent))
        # Cells are [x, x + 1); NaN, which marks an inverse that failed, stays NaN.
        return jnp.clip(jnp.floor(y), 0, problem.levels - 1)

    return Density(
        init,
        lambda theta, x, u, dropout=None: whole.log_density(theta, x + u, dropout),
        None,
        simulate,
        lambda theta, y: whole.generate(theta, whole.transform(theta, y)),
    )


def _autoregressive(kind: Callable[..., autoregressive.Autoregressive]):
    def make(problem: Problem, config: Any) -> Density:
        size = int(np.prod(problem.shape))
        model = kind(
            size, problem.levels,
            hidden=(config.width,) * config.num_layers, num_components=config.num_components,
            dropout=config.dropout,
        )  # fmt: skip
        flat = problem.dataset.train.reshape(len(problem.dataset.train), -1)
        mean = flat.mean(0, dtype=np.float64).astype(np.float32)
        deviation = flat.std(0, dtype=np.float64).astype(np.float32)
        log_density = model.log_density
        return Density(
            lambda key, x: model.init(key, jnp.asarray(mean), jnp.asarray(deviation)),
            None if log_density is None else (
                lambda theta, x, u, dropout=None: log_density(
                    theta, x.reshape(-1), u.reshape(-1), dropout
                )
            ),
            lambda theta, x, dropout=None: model.log_prob(theta, x.reshape(-1), dropout),
            lambda theta, key: model.simulate(theta, key).reshape(problem.shape),
            None,
        )  # fmt: skip

    return make


DENSITIES: dict[str, Callable[[Problem, Any], Density]] = {
    "flow": _flow,
    "subset_flow": _autoregressive(autoregressive.subset_flow),
    "discretized": _autoregressive(autoregressive.discretized),
}


def _noise_network(config: Any, index: int):
    network = NETWORKS[config.network]
    # Far from the indices of the density's couplings, whose dropout key this shares.
    return network(config.noise_width, config.noise_layers, 200 + index, config, 0.0)


def _flow_noise(problem: Problem, config: Any) -> noise.LearnedNoise:
    return noise.image_noise(
        problem.levels,
        COUPLINGS[config.noise_coupling](config.noise_components),
        lambda index: _noise_network(config, index),
        num_couplings=config.noise_couplings,
        feature_filters=config.noise_features,
        feature_blocks=config.noise_feature_blocks,
        norm=config.noise_norm,
        pointwise=config.noise_pointwise,
        dropout=config.dropout,
    )


def _diagonal_noise(base: str):
    return lambda problem, config: noise.diagonal_noise(
        problem.levels, _noise_network(config, 0), base=base
    )


NOISES: dict[str, Callable[[Problem, Any], noise.LearnedNoise]] = {
    "uniform": lambda problem, config: noise.uniform_noise(),
    "logistic": _diagonal_noise("logistic"),
    "normal": _diagonal_noise("normal"),
    "flow": _flow_noise,
    "autoregressive": lambda problem, config: noise.autoregressive_noise(
        problem.levels, (config.noise_width,) * config.noise_layers
    ),
}
