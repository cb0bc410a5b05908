"""What PRNG keys are for: every purpose that a program has, each with a number of its own.

A seed of training is split in three: the start, the order of the data, the steps. Every other
purpose folds a number into its seed, is a part of a seed that is split, or has the seed to itself.
Numbers are counted from the far end where images or steps fold small ones into the same seed.
"""

import enum
from typing import NamedTuple

import jax
from jaxtyping import Array

_END = 2**32


class Part(NamedTuple):
    """One of the keys that a seed is split into."""

    index: int
    of: int


@enum.unique
class Purpose(enum.Enum):
    """What a key is for; a value is (the kind of seed, what is folded into it or taken of it).

    That is a number, a part, or None for the key of the seed as it is.
    """

    # The second of two stages of training, see `of_training`.
    PRIOR_STAGE = ("training", 2)
    # The noise of a finished model's integers.
    NOISE_STAGE = ("training", 3)
    VALIDATION = ("training", _END - 2)
    PICTURES = ("training", _END - 6)

    VALIDATION_BITS = ("binarization", 0)
    TEST_BITS = ("binarization", 1)
    TRAIN_BITS = ("binarization", 2)
    EVALUATION_OF_BITS = ("binarization", _END - 1)

    TEST_IMAGES = ("evaluation", None)
    ROUND_TRIP = ("evaluation", _END - 3)
    SAMPLES = ("evaluation", _END - 4)
    SINGLE_TIMES = ("evaluation", _END - 5)
    CONTINUOUS_TIME = ("evaluation", _END - 6)
    RELAXATIONS = ("evaluation", _END - 7)
    MARGINAL = ("evaluation", _END - 8)
    ODE = ("evaluation", _END - 9)
    ODE_SAMPLES = ("evaluation", _END - 10)
    ORDERS = ("evaluation", _END - 11)
    SCHEDULES = ("evaluation", _END - 12)

    VAE_IMAGES = ("evaluation of a VAE", _END - 1)
    VAE_ACTIVE_UNITS = ("evaluation of a VAE", _END - 2)
    VAE_SIMULATION = ("evaluation of a VAE", _END - 3)
    VAE_SANDWICH = ("evaluation of a VAE", _END - 4)
    VAE_SIMULATED_IMAGES = ("evaluation of a VAE", _END - 5)
    VAE_CURVES = ("evaluation of a VAE", _END - 6)
    VAE_ANNEALED = ("evaluation of a VAE", _END - 7)

    DECOMPOSITION = ("surgery", _END - 1)
    MINIBATCHES = ("surgery", _END - 2)
    TRAINING_CURVE = ("surgery", _END - 3)
    OPTIMAL_PRIOR = ("surgery", _END - 4)
    GAPS = ("surgery", _END - 5)
    PLANE = ("surgery", _END - 6)
    GAPS_OF_TRAINING = ("surgery", _END - 7)

    AUDIT_OF_MODEL = ("audit", _END - 1)
    AUDIT_OF_CLAIMS = ("audit", _END - 2)
    AUDIT_PILOT = ("audit", _END - 3)

    ADVICE_GRADIENTS = ("advice", _END - 1)
    ADVICE_DATA = ("advice", _END - 2)
    ADVICE_START = ("advice", _END - 3)
    ADVICE_TEST = ("advice", _END - 4)
    ADVICE_SCORES = ("advice", _END - 5)
    ADVICE_PATH = ("advice", _END - 6)

    SNR_DATA = ("signal-to-noise of a toy", Part(0, 3))
    SNR_PERTURBATION = ("signal-to-noise of a toy", Part(1, 3))
    SNR_GRADIENTS = ("signal-to-noise of a toy", Part(2, 3))

    SNR_VAE_TRAINING = ("signal-to-noise of a VAE", Part(0, 3))
    SNR_VAE_MINIBATCH = ("signal-to-noise of a VAE", Part(1, 3))
    SNR_VAE_GRADIENTS = ("signal-to-noise of a VAE", Part(2, 3))

    # One key for the flow of two pixels, the draws for each control, and the fitted mixtures.
    CONTROLS = ("exact controls", None)

    VISIT_NUMBERS = ("a visit to an accelerator", None)


def key_for(seed: int, purpose: Purpose) -> Array:
    """The key of a purpose; image i then takes fold_in(key, i)."""
    root, (_, taken) = jax.random.key(seed), purpose.value
    if isinstance(taken, Part):
        return jax.random.split(root, taken.of)[taken.index]
    return root if taken is None else jax.random.fold_in(root, taken)


def of_training(seed: int, stage: Purpose | None = None) -> tuple[Array, Array, Array]:
    """Keys of the start, of the order of the data, and of the steps of a training or a stage."""
    root = jax.random.key(seed) if stage is None else key_for(seed, stage)
    start, order, steps = jax.random.split(root, 3)
    return start, order, steps
