"""From settings to a dVAE of images, a prior of its tokens and of captions, and their data."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import bounds
from experiments.dalle import settings
from experiments.data import captions
from experiments.data.captions import Captions, Vocabulary
from experiments.runtime.errors import UserError
from experiments.studies.images import Problem, make_problem
from models import pixels
from models.dvae import DVAE, make_dvae
from models.masked_tokens import make_masked_prior
from models.token_prior import TokenPrior, make_prior

LIKELIHOODS: dict[str, Callable[[int], pixels.PixelLikelihood]] = {
    "bernoulli": lambda levels: pixels.bernoulli(),
    "discretized_logistic": pixels.discretized_logistic,
    "discretized_logit_laplace": pixels.discretized_logit_laplace,
    "logit_laplace": pixels.logit_laplace,
}

PRIORS = {"causal": make_prior, "masked": make_masked_prior}


class Data(NamedTuple):
    """Images with captions.

    Attributes:
      problem: the images.
      captions: one for each.
      vocabulary: of their words.
      tokens: split -> int32 [N, T].
    """

    problem: Problem
    captions: Captions
    vocabulary: Vocabulary
    tokens: dict[str, np.ndarray]

    @property
    def classes(self) -> tuple[str, ...]:
        """The different captions of the test images, classes in their usual order."""
        known = (*captions.DIGITS, *captions.CLOTHES)
        found = dict.fromkeys(self.captions.test)
        return tuple(sorted(found, key=lambda c: known.index(c) if c in known else len(known)))


class Model(NamedTuple):
    """A dVAE and a prior; parameters are Params({"decoder", "prior"}, encoder).

    Attributes:
      dvae: images and tokens.
      prior: tokens and captions.
      init: key -> parameters.
      joint: p(y, z) by the prior, of data (x, y).
      images: the model with a uniform prior of z and no y, of data (x, ()): the first stage.
    """

    dvae: DVAE
    prior: TokenPrior
    init: Callable[[Array], bounds.Params]
    joint: bounds.joint.JointModel
    images: bounds.joint.JointModel

    def with_dropout(self, key: Any) -> bounds.joint.JointModel:
        """`joint` with dropout in the prior; without where there is no key."""
        return self.joint._replace(prior=functools.partial(_prior, self.prior, dropout=key))

    @property
    def num_codes(self) -> int:
        """K, the number of codes in the codebook."""
        return self.dvae.num_codes

    @property
    def num_sequences(self) -> int:
        """How many z there are, K^N."""
        return self.num_codes**self.dvae.num_tokens


def make_data(wanted: settings.Data, data_dir: str) -> Data:
    """Reads images and captions.

    Raises:
      UserError: they cannot be read, or a caption is longer than the context.
    """
    problem = enlarged(make_problem(wanted.name, data_dir), wanted.enlarge)
    found = captions.load(wanted.name, data_dir)
    vocabulary = captions.vocabulary(found, wanted.text_length)
    tokens = {split: vocabulary.all_tokens(getattr(found, split)) for split in Captions._fields}
    return Data(problem, found, vocabulary, tokens)


def enlarged(problem: Problem, times: int) -> Problem:
    """Each pixel repeated in both directions."""
    if times == 1:
        return problem
    dataset = problem.dataset
    parts = {
        split: getattr(dataset, split).repeat(times, axis=1).repeat(times, axis=2)
        for split in Captions._fields
    }
    height, wide, channels = problem.shape
    named = dataset._replace(name=f"{dataset.name}, each pixel {times}x{times}", **parts)
    return Problem(named, (times * height, times * wide, channels))


def make_model(data: Data, trained: settings.Trained) -> Model:
    """The dVAE and its prior.

    Raises:
      UserError: a size does not fit the images, or the likelihood their levels.
    """
    wanted, of_prior = trained.model, trained.prior
    problem = data.problem
    likelihood = LIKELIHOODS[wanted.likelihood](problem.levels)
    if likelihood.levels != problem.levels:
        raise UserError(
            f"--config.model.likelihood={wanted.likelihood} is of {likelihood.levels} levels, "
            f"{problem.dataset.name} has {problem.levels}; choose discretized_logit_laplace."
        )
    try:
        dvae = make_dvae(
            problem.shape,
            likelihood=likelihood,
            num_codes=wanted.num_codes,
            groups=_groups(problem.shape, wanted.grid),
            width=wanted.width,
            blocks=wanted.num_blocks,
            embedding=wanted.embedding,
        )
        prior = PRIORS[of_prior.network](
            num_words=len(data.vocabulary.words),
            text_length=data.vocabulary.length,
            num_codes=wanted.num_codes,
            grid=dvae.grid,
            layers=of_prior.num_layers,
            width=of_prior.width,
            heads=of_prior.num_heads,
            dropout=of_prior.dropout,
        )
    except ValueError as error:
        raise UserError(
            f"this model of images of shape {problem.shape} cannot be made: {error}"
        ) from None
    train = problem.dataset.train
    moments = [
        jnp.asarray(f(train, axis=0, dtype=np.float64), jnp.float32).reshape(problem.shape)
        for f in (np.mean, np.std)
    ]

    def init(key: Array) -> bounds.Params:
        first, second = jax.random.split(key)
        decoder, encoder = dvae.init(first, *moments)
        return bounds.Params({"decoder": decoder, "prior": prior.init(second)}, encoder)

    def log_px(theta: PyTree, x: Array, y: PyTree, codes: Array) -> Array:
        del y  # as the paper assumes, x depends on y through z alone
        return dvae.log_px(theta["decoder"], x, codes)

    flat = jnp.zeros((dvae.num_tokens, dvae.num_codes))
    joint = bounds.joint.JointModel(dvae.encode, functools.partial(_prior, prior), log_px)
    images = joint._replace(prior=lambda theta, y, z: (jnp.zeros(()), flat))
    return Model(dvae, prior, init, joint, images)


def _prior(prior: TokenPrior, theta: PyTree, y: Array, z: Array, dropout: Any = None):
    return prior(theta["prior"], y, z, dropout)


def _groups(shape: tuple[int, ...], grid: int) -> int:
    """Groups of residual blocks that make an image `grid` tokens wide.

    Raises:
      UserError: no power of two does.
    """
    height, wide, _ = shape
    side = wide // grid
    groups = 1 + round(math.log2(side)) if side else 0
    if not side or side * grid != wide or height % side or 2 ** (groups - 1) != side:
        raise UserError(
            f"--config.model.grid={grid} does not divide an image of {height}x{wide} into "
            f"squares of 1, 2, 4, ... pixels; choose one of "
            f"{', '.join(str(g) for g in _possible(height, wide))}."
        )
    return groups


def _possible(height: int, wide: int) -> list[int]:
    sides = [2**k for k in range(12)]
    return [wide // s for s in sides if wide % s == 0 and height % s == 0]
