"""Each part at a tiny size: the rows that published numbers are set beside come out of it."""

import math

import pytest

from experiments.reproduced import __main__ as program
from experiments.reproduced import programs, published, table
from experiments.reproduced.settings import Reproduced
from experiments.runtime import settings, subprograms

TINY_TRAINING = {
    "optimizer": {"warmup_steps": 1},
    "training": {"num_steps": 4, "batch_size": 16, "validation_samples": 2},
    "records": {"log_every": 2, "save_every": 2},  # validated twice, by the same draws
}
TINY_VAE = TINY_TRAINING | {"model": {"latents": (2,), "hidden": ((4,),)}}
TINY_DVAE = TINY_TRAINING | {
    "model": {"grid": 2, "num_codes": 4, "width": 4, "embedding": 4},
    "prior": {"num_layers": 1, "width": 4, "num_heads": 1, "num_steps": 4},
    "evaluation": {"num_images": 4, "num_samples": 4, "temperatures": (0.5,)},
}
# Part -> changes that make it a matter of seconds, on data that are there.
TINY = {
    "vdm_schedules": TINY_TRAINING | {
        "network": {"width": 8, "num_blocks": 1},
        "evaluation": {"num_images": 6, "num_times": 2},
    },
    "daudel_gaussian": {
        "toy": {"num_data": 8}, "num_dims": (5, 20), "num_samples": (64, 1024),
        "replicates": {"number": 4, "num_blocks": 2}, "gaps": 4,
    },
    "rainforth_mnist": {
        "data": {"name": "digits"}, "training": {"num_steps": 2},
        "model": {"latents": (2,), "hidden": ((4,),)}, "batch_size": 2,
        "replicates": {"number": 40, "num_blocks": 2}, "num_samples": (1, 64),
    },
    "cremer": {
        "training": "configs/train_digits.py",
        "models": {
            name: TINY_TRAINING | {
                "model": {"latents": (2,), "hidden": ((4,),), "encoder_hidden": (width,)},
                "evaluation": {"few_samples": 2, "num_samples": 4, "num_images": 4},
            }
            for name, width in (("small", (3,)), ("paper", (4, 4)), ("large", (6, 6)))
        },
        "decomposition": {
            "num_images": 40, "num_draws": 4, "curve_draws": 2, "batch_size": 8, "num_batches": 5,
        },
        "prior": {"num_images": 12},
        "gap": {"num_images": 4, "num_steps": 4, "num_draws": 20, "num_samples": 60},
    },
    "flowpp_mnist": TINY_TRAINING | {
        "data": {"name": "digits_shuffled"},
        "model": {"width": 4, "num_components": 2}, "noise": {"width": 4, "num_features": 4},
        "evaluation": {"num_images": 4},
    },
    "dalle_beta": TINY_DVAE | {"data": {"name": "digits_shuffled"}},
    "burda_k50": TINY_VAE | {
        "data": {"name": "digits"}, "evaluation": {"num_images": 4},
    },
    "larochelle": TINY_VAE | {"data": {"name": "digits"}, "evaluation": {"num_images": 4}},
    "rainforth_table": TINY_VAE | {"data": {"name": "digits"}, "evaluation": {"num_images": 4}},
    "wu_prior_100": {
        "evaluation": {"num_images": 4, "curve_samples": (1,)},
        "annealing": {"simulated_images": 2, "test_images": 4, "chains": 2, "leapfrog": 1},
    },
    "compare_mnist": {
        "data": {"name": "digits_shuffled"},
        "families": {
            "VAE": {
                "changes": TINY_VAE | {"evaluation": {"num_samples": 4, "num_images": 4}},
                "evaluation_changes": {
                    "evaluation": {"num_images": 4, "few_samples": 2, "curve_samples": (1,)},
                    "annealing": {"test_images": 2, "simulated_images": 2, "temperatures": 2},
                },
            },
            "Exact": {"changes": TINY_TRAINING | {
                "model": {"width": 4}, "evaluation": {"num_images": 4},
            }},
            "Diffusion": {"changes": TINY_TRAINING | {
                "network": {"width": 8}, "evaluation": {"num_images": 4, "num_times": 2},
            }},
            "Masked": {"changes": TINY_TRAINING | {
                "network": {"num_layers": 1, "width": 4},
                "evaluation": {"num_images": 4, "num_counts": 2},
            }},
            "dVAE": {"changes": TINY_DVAE},
        },
    },
}  # fmt: skip
# What is there before a part that goes on from it.
BEFORE = {"wu_prior_100": "burda_k50", "compare_mnist": "flowpp_mnist"}
QUICK = ("vdm_schedules",)


def asked(**changes):
    return settings.parse(Reproduced, subprograms.load_config("configs/reproduced.py", changes))


def places(part):
    """(source, place) of everything that is said of a part."""
    for source in published.SOURCES:
        for place in [c.ours for c in source.claims] + [
            p for o in source.orders for p in (o.above, o.below)
        ]:
            if place.part == part:
                yield source, place


def test_all_parts_are_what_their_programs_take():
    whole = asked()
    assert set(programs.jobs(whole, "folder")) == set(whole.parts)
    assert {p.part for s in published.SOURCES for p in [c.ours for c in s.claims]} <= set(
        whole.parts
    )
    assert all(list(places(part)) for part in whole.parts)


def test_a_part_that_goes_on_from_another_finds_it_in_the_same_folder():
    job = programs.jobs(asked(order=("wu_prior_100",)), "folder")["wu_prior_100"]
    assert job.asked.run == "folder/burda_k50/iwae_K50_seed0"
    assert (job.asked.annealing.start, job.asked.annealing.temperatures) == ("prior", 100)


@pytest.mark.parametrize(
    "part", [pytest.param(p, marks=[pytest.mark.slow] * (p not in QUICK)) for p in TINY]
)
def test_what_is_said_of_a_part_is_found_in_it(part, tmp_path, capsys):
    order = (BEFORE[part], part) if part in BEFORE else (part,)
    given = asked(parts={name: {"changes": TINY[name]} for name in order}, order=order)
    program.main(given, str(tmp_path))
    there = {part: table._rows_of(str(tmp_path / part))}
    for source, place in places(part):
        if place.at.get("D", 0) <= 20:
            found = table._find(place, there)
            assert found is not None, (source.paper, place)
            assert math.isfinite(found.value)
    assert f"| `{part}` |" in capsys.readouterr().out
