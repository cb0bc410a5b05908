"""Keys by purpose: their numbers decide results, and none is used twice under one seed."""

import collections
import re

import jax
import numpy as np
from repository import ROOT

from experiments.runtime import keys
from experiments.runtime.keys import Part, Purpose

END = 2**32
NUMBERS = {
    "PRIOR_STAGE": ("training", 2),
    "NOISE_STAGE": ("training", 3),
    "VALIDATION": ("training", END - 2),
    "PICTURES": ("training", END - 6),
    "VALIDATION_BITS": ("binarization", 0),
    "TEST_BITS": ("binarization", 1),
    "TRAIN_BITS": ("binarization", 2),
    "EVALUATION_OF_BITS": ("binarization", END - 1),
    "TEST_IMAGES": ("evaluation", None),
    "ROUND_TRIP": ("evaluation", END - 3),
    "SAMPLES": ("evaluation", END - 4),
    "SINGLE_TIMES": ("evaluation", END - 5),
    "CONTINUOUS_TIME": ("evaluation", END - 6),
    "RELAXATIONS": ("evaluation", END - 7),
    "MARGINAL": ("evaluation", END - 8),
    "ODE": ("evaluation", END - 9),
    "ODE_SAMPLES": ("evaluation", END - 10),
    "ORDERS": ("evaluation", END - 11),
    "SCHEDULES": ("evaluation", END - 12),
    "VAE_IMAGES": ("evaluation of a VAE", END - 1),
    "VAE_ACTIVE_UNITS": ("evaluation of a VAE", END - 2),
    "VAE_SIMULATION": ("evaluation of a VAE", END - 3),
    "VAE_SANDWICH": ("evaluation of a VAE", END - 4),
    "VAE_SIMULATED_IMAGES": ("evaluation of a VAE", END - 5),
    "VAE_CURVES": ("evaluation of a VAE", END - 6),
    "VAE_ANNEALED": ("evaluation of a VAE", END - 7),
    "DECOMPOSITION": ("surgery", END - 1),
    "MINIBATCHES": ("surgery", END - 2),
    "TRAINING_CURVE": ("surgery", END - 3),
    "OPTIMAL_PRIOR": ("surgery", END - 4),
    "GAPS": ("surgery", END - 5),
    "PLANE": ("surgery", END - 6),
    "GAPS_OF_TRAINING": ("surgery", END - 7),
    "AUDIT_OF_MODEL": ("audit", END - 1),
    "AUDIT_OF_CLAIMS": ("audit", END - 2),
    "AUDIT_PILOT": ("audit", END - 3),
    "ADVICE_GRADIENTS": ("advice", END - 1),
    "ADVICE_DATA": ("advice", END - 2),
    "ADVICE_START": ("advice", END - 3),
    "ADVICE_TEST": ("advice", END - 4),
    "ADVICE_SCORES": ("advice", END - 5),
    "ADVICE_PATH": ("advice", END - 6),
    "SNR_DATA": ("signal-to-noise of a toy", Part(0, 3)),
    "SNR_PERTURBATION": ("signal-to-noise of a toy", Part(1, 3)),
    "SNR_GRADIENTS": ("signal-to-noise of a toy", Part(2, 3)),
    "SNR_VAE_TRAINING": ("signal-to-noise of a VAE", Part(0, 3)),
    "SNR_VAE_MINIBATCH": ("signal-to-noise of a VAE", Part(1, 3)),
    "SNR_VAE_GRADIENTS": ("signal-to-noise of a VAE", Part(2, 3)),
    "CONTROLS": ("exact controls", None),
    "VISIT_NUMBERS": ("a visit to an accelerator", None),
}


def test_numbers_that_decide_results_stand():
    assert {p.name: p.value for p in Purpose} == NUMBERS


def test_no_two_purposes_share_a_number_under_one_seed():
    # An alias is no member, so the members alone would not show it.
    named = collections.Counter(p.value for p in Purpose.__members__.values())
    assert set(named.values()) == {1}
    assert all(0 <= taken < END for _, taken in named if isinstance(taken, int))
    assert all(0 <= t.index < t.of for _, t in named if isinstance(t, Part))


def test_keys_are_what_they_were():
    """By the definition, without the module: seed and number, folded; or the seed, split."""
    data = jax.random.key_data
    for purpose in (Purpose.TEST_BITS, Purpose.SAMPLES, Purpose.GAPS):
        expected = jax.random.fold_in(jax.random.key(7), NUMBERS[purpose.name][1])
        np.testing.assert_array_equal(data(keys.key_for(7, purpose)), data(expected))
    parts = Purpose.SNR_DATA, Purpose.SNR_PERTURBATION, Purpose.SNR_GRADIENTS
    for part, wanted in zip(parts, jax.random.split(jax.random.key(7), 3), strict=True):
        np.testing.assert_array_equal(data(keys.key_for(7, part)), data(wanted))
    whole = keys.key_for(7, Purpose.TEST_IMAGES)
    np.testing.assert_array_equal(data(whole), data(jax.random.key(7)))
    for stage in (None, Purpose.PRIOR_STAGE):
        root = jax.random.key(7)
        root = jax.random.fold_in(root, 2) if stage else root
        found, expected = keys.of_training(7, stage), jax.random.split(root, 3)
        for key, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(data(key), data(wanted))


def test_every_purpose_is_used_and_no_key_is_made_of_a_seed_elsewhere():
    sources = {
        path.relative_to(ROOT): path.read_text() for path in (ROOT / "experiments").rglob("*.py")
    }
    elsewhere = {name: text for name, text in sources.items() if name.name != "keys.py"}
    # Where nothing is drawn, and where shapes alone are asked for, it is key(0).
    made = re.compile(r"jax\.random\.key\((?!0\))")
    assert [str(name) for name, text in elsewhere.items() if made.search(text)] == []
    for purpose in Purpose:
        assert any(f"Purpose.{purpose.name}" in text for text in elsewhere.values()), purpose
