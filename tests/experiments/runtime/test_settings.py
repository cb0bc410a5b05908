"""What a user's mistakes in a config are answered with: one line, which tells all of them."""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import sweep
from repository import ROOT

from experiments.compare.settings import Compare
from experiments.dequantize.settings import Dequantize
from experiments.diffusion.settings import Diffusion
from experiments.runtime import settings, subprograms
from experiments.runtime.errors import UserError
from experiments.studies.settings import ObjectiveName, OptimizerName, Study
from experiments.vae.settings import Reference, Train

DIGITS = subprograms.load_config("configs/train_digits.py", {})


def said(config: dict[str, Any], kind=Train) -> str:
    with pytest.raises(UserError) as caught:
        settings.parse(kind, config)
    assert str(caught.value).isprintable()
    return str(caught.value)


def changed(**changes) -> dict[str, Any]:
    return settings.merged(DIGITS, changes)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        # Names.
        (
            {"training": {"num_step": 3}},
            "--config.training.num_step is no field; did you mean --config.training.num_steps?",
        ),
        (
            {"trainig": {"num_steps": 3}},
            "--config.trainig is no field; did you mean --config.training?",
        ),
        # A field of a config without sections: that of its name in some section.
        (
            {"num_steps": 3},
            "--config.num_steps is no field; did you mean --config.training.num_steps?",
        ),
        # A field of another program.
        (
            {"evaluation": {"temperatures": (0.5,)}},
            "--config.evaluation.temperatures is no field; --config.evaluation has few_samples, "
            "num_samples, num_images.",
        ),
        ({"data": {1: 2}}, "--config.data.1 is no field; --config.data has name, "
                           "binarization_seed."),
        # Kinds.
        (
            {"training": {"num_steps": "many"}},
            "--config.training.num_steps must be a whole number, got 'many'.",
        ),
        (
            {"training": {"num_steps": True}},
            "--config.training.num_steps must be a whole number, got True.",
        ),
        (
            {"training": {"num_steps": 2.5}},
            "--config.training.num_steps must be a whole number, got 2.5.",
        ),
        (
            {"optimizer": {"learning_rate": "fast"}},
            "--config.optimizer.learning_rate must be a number, got 'fast'.",
        ),
        ({"objective": {"sleep": 1}}, "--config.objective.sleep must be True or False, got 1."),
        ({"data_dir": None}, "--config.data_dir must be a text, got None."),
        ({"model": 3}, "--config.model must be a section of fields, got 3."),
        (
            {"model": {"latents": 2}},
            "--config.model.latents must be a tuple such as (1, 2), got 2.",
        ),
        (
            {"model": {"latents": (2, "a"), "hidden": ((2,), (2,))}},
            "--config.model.latents[1] must be a whole number, got 'a'.",
        ),
        (
            {"model": {"hidden": ((2, 0.5),)}},
            "--config.model.hidden[0][1] must be a whole number, got 0.5.",
        ),
        ({"model": {"hidden": (2,)}}, "--config.model.hidden[0] must be a tuple such as (1, 2), "
                                      "got 2."),
        # Ranges.
        (
            {"objective": {"num_samples": 0}},
            "--config.objective.num_samples must be at least 1, got 0.",
        ),
        ({"seed": 2**70}, f"--config.seed must be less than 4294967296, got {2**70}."),
        ({"seed": -1}, "--config.seed must be at least 0, got -1."),
        (
            {"objective": {"num_samples": 2**31}},
            "--config.objective.num_samples must be at most 2147483647, got 2147483648.",
        ),
        (
            {"optimizer": {"learning_rate": float("nan")}},
            "--config.optimizer.learning_rate must be a finite number, got nan.",
        ),
        (
            {"optimizer": {"learning_rate": float("inf")}},
            "--config.optimizer.learning_rate must be a finite number, got inf.",
        ),
        (
            {"optimizer": {"learning_rate": 1e39}},  # infinite in float32
            "--config.optimizer.learning_rate must be at most 3.4e+38, got 1e+39.",
        ),
        (
            {"optimizer": {"learning_rate": 0.0}},
            "--config.optimizer.learning_rate must be greater than 0, got 0.0.",
        ),
        (
            {"training": {"ema_decay": 1.0}},
            "--config.training.ema_decay must be less than 1, got 1.0.",
        ),
        # Empty alone, and not because its entries are wrong.
        ({"model": {"latents": (), "hidden": ()}}, "--config.model.latents must be filled; it is "
                                                   "empty."),
        # Choices.
        (
            {"model": {"likelihood": "gauss"}},
            "--config.model.likelihood must be 'bernoulli', 'categorical' or "
            "'discretized_logistic', got 'gauss'.",
        ),
        # Rules between fields.
        (
            {"records": {"save_every": 77}},
            "--config.records.save_every must be a multiple of log_every (100), got 77.",
        ),
        (
            {"objective": {"name": "vimco", "num_samples": 1}},
            "--config.objective.num_samples must be at least 2 with vimco, got 1.",
        ),
        (
            {"optimizer": {"name": "adam_cosine", "warmup_steps": 9}, "training": {"num_steps": 9}},
            "--config.optimizer.warmup_steps must be below training.num_steps (9), got 9.",
        ),
        # Several, in one section and in many.
        (
            {"training": {"num_steps": -1, "batch_size": "a"}},
            "--config.training.batch_size must be a whole number, got 'a'. "
            "--config.training.num_steps must be at least 0, got -1.",
        ),
        (
            {"seeds": 0, "model": {"latents": None}, "records": {"log_every": 0}},
            "--config.seeds is no field; did you mean --config.seed? "
            "--config.model.latents must be a tuple such as (1, 2), got None. "
            "--config.records.log_every must be at least 1, got 0.",
        ),
    ],
    ids=lambda v: repr(v) if isinstance(v, dict) else "",
)  # fmt: skip
def test_mistake_is_answered_with_its_place_what_it_got_and_what_it_takes(changes, wanted):
    assert said(changed(**changes)) == wanted


def test_name_given_twice_is_answered_with_what_was_given():
    config = subprograms.load_config("configs/reference_mnist.py", {"seeds": (0, 1, 0)})
    assert said(config, Reference) == "--config.seeds must not name anything twice, got (0, 1, 0)."


@pytest.mark.parametrize("pair", [(), ("affine_flow",), ("affine_flow",) * 3])
def test_pair_of_another_length_is_shown(pair):
    config = subprograms.load_config("configs/dequantize_digits.py", {"compare": (pair,)})
    wanted = f"--config.compare[0] must be a pair of names of models, got {pair}."
    assert said(config, Dequantize) == wanted


def test_missing_section_and_config_of_another_program_are_told_apart():
    alone = {name: value for name, value in DIGITS.items() if name != "records"}
    first = "the first lines of each file in configs/ name the program it is for."
    assert said(alone) == f"--config lacks records; {first}"
    other = said(DIGITS, Diffusion)
    assert other.startswith("--config lacks models, compare, seeds, together, ")
    assert first in other
    assert "--config has data.binarization_seed, " in other
    assert "which are no fields." in other
    assert said({}).startswith("--config lacks data, optimizer, training, model, objective, seed")


def test_what_users_have_named_is_part_of_the_place():
    config = subprograms.load_config(
        "configs/compare_digits.py",
        {"families": {"VAE": {"confg": "x", "run": 1}, "a b": {"program": "train"}}},
    )
    message = said(config, Compare)
    assert (
        "--config.families.VAE.confg is no field; did you mean --config.families.VAE.config?"
        in (message)
    )
    assert "--config.families.VAE.run must be a text, got 1." in message
    assert "--config.families.a b: it is that of a folder and of a flag as well" in message


def test_huge_value_is_cut_short_and_bytes_that_are_no_text_are_printed():
    assert said(changed(seed="x" * 5000)).endswith("x....")
    given = settings.parse(Train, changed(data_dir="a\udc80"))
    assert given.data_dir == "a\\udc80"


def test_whole_numbers_are_numbers_and_lists_are_tuples():
    given = settings.parse(Train, changed(optimizer={"learning_rate": 1}, model={"latents": [3]}))
    assert given.optimizer.learning_rate == 1.0
    assert given.model.latents == (3,)


def test_settings_come_back_from_a_file_as_they_were():
    given = settings.parse(Train, DIGITS)
    assert settings.parse(Train, json.loads(json.dumps(settings.dump(given)))) == given
    with pytest.raises(ValueError, match="frozen"):
        given.seed = 1


# Through the door.


def door(*flags: str, program="train", config="configs/train_digits.py") -> str:
    """The one line that a program prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{program}", f"--config={config}",
         "--workdir=/nowhere/out", *flags],
        cwd=ROOT, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return (
        line.removeprefix("train.py: ").removeprefix("__main__.py: ").removeprefix("dequantize: ")
    )


def test_mistaken_flags_are_told_together_with_mistaken_values():
    assert door(
        "--config.trainig.num_steps=3",
        "--config.objective.nam",
        "dreg",
        "--config.training.num_steps=abc",
        "--config.model.latents=(1, 'a')",
        "--noconfig.foo",
        "--config.records.log_every=0.5",
        "--config.seed",
        "-1",
        "--config.optimizer.clip_norm=nan",
    ) == (
        "--config.objective.nam is no field; did you mean --config.objective.name? "
        "--config.trainig is no field; did you mean --config.training? "
        "--config.foo is no field; --config has data, optimizer, training, model, objective, seed, "
        "data_dir, records, evaluation. "
        "--config.optimizer.clip_norm must be a finite number, got nan. "
        "--config.training.num_steps must be a whole number, got 'abc'. "
        "--config.model.latents[1] must be a whole number, got 'a'. "
        "--config.seed must be at least 0, got -1. "
        "--config.records.log_every must be a whole number, got 0.5."
    )


def test_flag_of_another_name_is_told_by_absl():
    line = door("--wrkdir=3", "--config.seed=1")
    assert line == "Unknown command line flag 'wrkdir'. Did you mean: workdir ? (see --help)."


def test_mistyped_name_of_a_model_is_no_new_model():
    told = functools.partial(door, program="dequantize", config="configs/dequantize_digits.py")
    line = told("--config.models.affine_flwo.model.width=8")
    assert "--config.models.affine_flwo is not there; models has affine_flow, affine_uni" in line
    assert line.endswith("given whole, as in --config.models.affine_flwo={'model': ...}.")
    # One that is given whole is a model of its own, whose fields may be set after it.
    line = told("--config.models.own={'model': {'width': 8}}", "--config.models.own.model.width=0")
    assert line == "--config.models.own.model.width must be at least 1, got 0."


def test_numbers_of_thousands_of_digits_are_told_by_their_size():
    line = door("--config.seed=0x" + "f" * 5000)
    assert line == "--config.seed must be a whole number, got a number of 20000 bits."


def test_variant_of_a_config_that_has_none():
    line = door(config="configs/train_digits.py:nope")
    assert line.endswith("this file has no variants; leave out what stands behind its colon.")


# Every config that is shipped.

BEHIND_A_COMMA = {"train_mnist": "two_layers", "reference_mnist": "rainforth"}


def shipped() -> Iterator[tuple[str, str]]:
    """(program, FILE or FILE:VARIANT) of every config, which tells its variants when asked."""
    for path in sorted((ROOT / "configs").glob("[!_]*.py")):
        file, (program, *_) = f"configs/{path.name}", path.stem.split("_")
        yield "dequantize_exact" if path.stem == "dequantize_exact" else program, file
        try:
            subprograms.load_config(f"{file}:?", {})
        except UserError as error:
            found = re.search(r"must be (?:one of )?(.*?), (?:with|got)", str(error))
            for variant in re.split(", | or ", found[1]) if found else ():
                yield program, f"{file}:{variant}"
                if path.stem in BEHIND_A_COMMA:
                    yield program, f"{file}:{variant},{BEHIND_A_COMMA[path.stem]}"


SHIPPED = list(shipped())


def test_variants_are_found():
    names = {spec.removeprefix("configs/") for _, spec in SHIPPED}
    assert len(names) >= 40
    assert names > {
        "snr_gaussian.py:far",
        "train_mnist.py:paper,two_layers",
        "evaluate.py",
        "dequantize_flowpp.py:imagenet64",
        "dalle_digits.py:beta",
    }


@pytest.mark.parametrize(("program", "spec"), SHIPPED)
def test_shipped_config_parses_with_all_its_models_and_not_with_other_seeds(program, spec):
    config, parse = subprograms.load_config(spec, {}), sweep.program_of(program).parse
    given = parse(config)
    if isinstance(given, Study):
        for name in given.models:
            assert isinstance(given.of_model(name), given.OF_MODEL)
    for field in [n for n in config if n in ("seed", "seeds")]:
        for value in (-1, 2**32, 2**70):
            with pytest.raises(UserError, match=rf"config\.{field}.* must be .*, got {value}"):
                parse({**config, field: (0, value) if field == "seeds" else value})
        parse({**config, field: (2**32 - 1,) if field == "seeds" else 2**32 - 1})


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        (Train, "configs/train_digits.py", "objective"),
        (Train, "configs/train_mnist.py", "optimizer"),
        (Reference, "configs/reference_mnist.py", "optimizer"),
    ],
)
def test_every_objective_and_optimizer_can_be_named(kind, spec, field):
    for name in get_args(ObjectiveName if field == "objective" else OptimizerName):
        settings.parse(kind, subprograms.load_config(spec, {field: {"name": name}}))


@pytest.mark.parametrize(
    ("name", "field", "wrong", "right"),
    [
        ("renyi", "alpha", (-3.0, -1e-6, float("nan"), float("inf"), "1"), (0.0, 0.5, 1, 2.0)),
        ("ciwae", "beta", (-1.0, 1.5, float("nan"), "1"), (0.0, 0.5, 1)),
    ],
)
def test_orders_and_shares_that_give_no_bound_are_refused(name, field, wrong, right):
    for value in right:
        settings.parse(Train, changed(objective={"name": name, field: value}))
    for value in wrong:
        message = said(changed(objective={"name": name, field: value}))
        assert message.startswith(f"--config.objective.{field} must be ")
