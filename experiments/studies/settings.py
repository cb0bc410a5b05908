"""Sections of a config that families share; each family's own stand in its `settings.py`."""

import itertools
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from experiments.runtime import settings
from experiments.runtime.errors import UserError
from experiments.runtime.settings import (
    AtLeast0,
    BelowOne,
    Count,
    CountFrom0,
    Distinct,
    NotEmpty,
    Positive,
    Section,
    Seed,
    Share,
)

DatasetName = Literal[
    "digits", "digits_shuffled", "mnist", "fashion_mnist", "binarized_mnist", "omniglot",
    "omniglot_rebuilt", "cifar10", "cifar10_first4000", "emoji", "imagenet32", "imagenet64",
]  # fmt: skip
OptimizerName = Literal["adam", "adam_warmup", "adam_cosine", "sgd", "paper", "released_code"]
ObjectiveName = Literal[
    "elbo", "iwae", "ciwae", "renyi", "miwae", "piwae", "stl", "dreg", "vimco", "rloo", "ovis",
    "reinforce", "rws",
]  # fmt: skip


def _a_path(betas: tuple[float, ...]) -> tuple[float, ...]:
    rises = all(low < high for low, high in itertools.pairwise(betas))
    if betas[0] != 0 or betas[-1] != 1 or not rises:
        raise ValueError(f"must start at 0, increase and end at 1, got {betas}")
    return betas


Betas = Annotated[tuple[float, ...], Field(min_length=1, max_length=100), AfterValidator(_a_path)]
"""Inverse temperatures of a thermodynamic bound."""


class Data(Section):
    """Which images; where their files lie is `data_dir`, which identifies nothing."""

    name: DatasetName


class Objective(Section):
    """What is maximised.

    Attributes:
      num_samples: K.
      num_groups: M, of miwae and piwae.
      beta: share of the ELBO, of ciwae.
      alpha: order, of renyi: 0 is IWAE, 1 the ELBO, and below 0 there is no bound.
      sleep: whether rws adds its sleep phase.
      images_at_once: of a batch, whose gradients are taken together and added to those of the
        others, for less memory, and on a CPU for less time where they then fit its cache; 0: all.
    """

    name: ObjectiveName
    num_samples: Count
    num_groups: Count
    beta: Share
    alpha: AtLeast0
    sleep: bool
    images_at_once: CountFrom0 = 0

    @model_validator(mode="after")
    def _baseline(self):
        if self.name in ("vimco", "rloo", "ovis") and self.num_samples < 2:
            raise ValueError(
                f"num_samples must be at least 2 with {self.name}, got {self.num_samples}"
            )
        return self


class Optimizer(Section):
    """How steps are taken, see `runtime.optimizers`.

    Attributes:
      learning_rate: not looked at by paper and released_code, which have their own.
      warmup_steps: of adam_warmup and adam_cosine, in which the rate rises from 0.
      clip_norm: largest norm of the mean gradient; 0: off.
    """

    name: OptimizerName
    learning_rate: Positive
    warmup_steps: CountFrom0
    clip_norm: AtLeast0


class Training(Section):
    """How long, on what, and how its end is chosen.

    Attributes:
      num_steps: 0 for Burda's 3,280 epochs, under the optimizers paper and released_code, whose
        stages more or fewer steps change in proportion.
      ema_decay: of the average of parameters that is evaluated; 0: off.
      validation_samples: draws for each validation image.
    """

    batch_size: Count
    num_steps: CountFrom0
    ema_decay: BelowOne
    validation_samples: Count


class Records(Section):
    """What is written on the way: it does not change what is trained.

    Attributes:
      log_every: steps between two lines of metrics.
      save_every: steps between two validations and checkpoints.
      keep_checkpoints: the latest that are kept, beside the best.
    """

    log_every: Count
    save_every: Count
    keep_checkpoints: Count

    @model_validator(mode="after")
    def _multiple(self):
        if self.save_every % self.log_every:
            raise ValueError(
                f"save_every must be a multiple of log_every ({self.log_every}), "
                f"got {self.save_every}"
            )
        return self


class Memory(Section):
    """How much is in memory at once, on each device: it changes results by rounding alone."""

    images_per_pass: Count
    samples_per_pass: Count


class Trained(Section):
    """What identifies a trained model, beside its seed; families add sections of their own."""

    data: Data
    optimizer: Optimizer
    training: Training

    @model_validator(mode="after")
    def _length(self):
        burda = self.optimizer.name in ("paper", "released_code")
        if not self.training.num_steps and not burda:
            raise ValueError("training.num_steps must be at least 1 with this optimizer, got 0")
        warmup_within("training", self.training.num_steps, self.optimizer)
        return self


def _name_of_folder(name: str) -> str:
    if not re.fullmatch(r"[\w+-]+", name):
        raise ValueError("it names a folder as well, so use letters, digits, _, + and - only")
    return name


def _two(pair: tuple[str, ...]) -> tuple[str, ...]:
    if len(pair) != 2:
        raise ValueError(f"must be a pair of names of models, got {pair}")
    return pair


ModelName = Annotated[str, AfterValidator(_name_of_folder)]
# Not tuple[str, str]: a pair with one name would be reported as a field missing in the config.
Pair = Annotated[tuple[str, ...], AfterValidator(_two)]


class Study(Section):
    """Models x seeds on the same data, scored alike.

    Attributes:
      models: name -> section -> field -> value: what a model changes in what is trained.
      compare: pairs of models whose differences are told, paired by seed.
      seeds: of training.
      together: whether all seeds of a model are trained as one.
      data_dir: where the files of the data lie.
    """

    OF_MODEL: ClassVar[type[Trained]]  # which sections a model may change
    models: Annotated[dict[ModelName, dict[str, Any]], NotEmpty]
    compare: tuple[Pair, ...]
    seeds: Annotated[tuple[Seed, ...], NotEmpty, Distinct]
    together: bool
    data_dir: str
    data: Data
    records: Records
    _of_models: dict[str, Any] = PrivateAttr()

    @model_validator(mode="after")
    def _names(self):
        for name in (name for pair in self.compare for name in pair):
            if name not in self.models:
                raise ValueError(f"compare names {name!r}, which is none of models")
        return self

    def complete(self, where: str) -> None:
        """Parses the models, whose changes are to sections that are right."""
        models, shared = f"{where}.models", settings.dump(self, self.OF_MODEL)

        def parsed(name: str) -> Trained:
            where, changes = f"{models}.{name}", self.models[name]
            if "data" in changes:
                raise UserError(f"{where}.data: all models of a study are of the same data.")
            return settings.parse(self.OF_MODEL, settings.merged(shared, changes), where)

        self._of_models = settings.each(self.models, parsed, models)

    def of_model(self, name: str) -> Any:
        """What is trained under a name: an `OF_MODEL`."""
        return self._of_models[name]


def warmup_within(section: str, num_steps: int, optimizer: Optimizer) -> None:
    """Refuses a training that ends before the rate of adam_cosine has come to fall."""
    if optimizer.name == "adam_cosine" and optimizer.warmup_steps >= num_steps:
        raise ValueError(
            f"optimizer.warmup_steps must be below {section}.num_steps ({num_steps}), "
            f"got {optimizer.warmup_steps}"
        )


def rising_divisors(name: str, counts: tuple[Any, ...]) -> None:
    """Refuses counts of samples from which no curve can be made."""
    rises = all(b > a for a, b in itertools.pairwise(counts))
    if counts[0] != 1 or not rises or any(counts[-1] % k for k in counts):
        raise ValueError(
            f"{name} must rise from 1 (the ELBO) to a multiple of all of them, e.g. (1, 8, 64), "
            f"got {counts}"
        )
