"""Settings of `experiments.diffusion`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from experiments.runtime.errors import UserError
from experiments.runtime.settings import (
    BelowOne,
    Count,
    CountFrom0,
    Depth,
    DepthFrom0,
    Distinct,
    NotEmpty,
    Positive,
    Section,
    Seed,
    Width,
)
from experiments.studies import settings as shared

GREATEST_GAMMA = 60.0  # that of the library


class Chain(Section):
    """How x becomes noise, and what is predicted on the way back.

    Attributes:
      schedule: linear and cosine are DDPM's, of discrete time; those of VDM and straight, that of
        flow matching, are of continuous time from `gamma_min` to `gamma_max`, -log SNR at either
        end.
      timesteps: of training; 0: continuous time.
      evaluation_timesteps: of the bound and the samples; 0: those of training.
      variance: of a step backwards, of linear and cosine.
      decoder: of linear and cosine.
    """

    schedule: Literal["linear", "cosine", "vdm_linear", "vdm_learned", "straight"]
    gamma_min: Annotated[float, Field(ge=-GREATEST_GAMMA, le=GREATEST_GAMMA)]
    gamma_max: Annotated[float, Field(ge=-GREATEST_GAMMA, le=GREATEST_GAMMA)]
    timesteps: Annotated[int, Field(ge=0, le=10**6)]
    evaluation_timesteps: Annotated[int, Field(ge=0, le=10**6)]
    prediction: Literal["eps", "x", "v", "velocity"]
    variance: Literal["fixed_small", "fixed_large", "learned"]
    decoder: Literal["gaussian", "logistic"]

    @property
    def continuous(self) -> bool:
        """Whether there is a limit of many steps."""
        return self.schedule.startswith("vdm_") or self.schedule == "straight"

    @model_validator(mode="after")
    def _gamma(self):
        if self.gamma_min >= self.gamma_max:
            raise ValueError(
                f"gamma_min must be below gamma_max ({self.gamma_max}), got {self.gamma_min}"
            )
        return self

    @model_validator(mode="after")
    def _steps(self):
        if self.continuous:
            if self.variance != "fixed_small":
                raise ValueError(
                    "variance must be fixed_small with a schedule of continuous time, where any "
                    f"other has an infinite bound; got {self.variance}"
                )
            if not self.evaluation_timesteps and not self.timesteps:
                raise ValueError(
                    "evaluation_timesteps must be at least 1 where timesteps is 0 (continuous "
                    "time): the bound and the samples take steps"
                )
            return self
        if self.timesteps < 2:
            raise ValueError(
                f"timesteps must be at least 2 with the schedule {self.schedule}, which is of "
                f"discrete time, got {self.timesteps}; vdm_linear takes 0 for continuous time"
            )
        if self.evaluation_timesteps not in (0, self.timesteps):
            raise ValueError(
                "evaluation_timesteps must be 0, for timesteps: another number of steps is "
                f"another model; got {self.evaluation_timesteps}"
            )
        return self


class Network(Section):
    """What predicts.

    Attributes:
      name: unet, or a perceptron; the gated one lets the noise of a pixel pass by its blocks.
      width: of the perceptron, or filters at full resolution.
      multipliers: of the width, one for each resolution; unet.
      num_blocks: for each resolution.
      attention: resolutions that have it, counted from 0; unet.
      fourier: sin and cos of 2^p pi x stand beside x, for each p.
      dtype: what layers compute in; parameters and the bound around them stay in float32.
    """

    name: Literal["unet", "mlp", "gated_mlp"]
    width: Width
    multipliers: tuple[Depth, ...]
    num_blocks: Depth
    attention: tuple[DepthFrom0, ...]
    fourier: tuple[Annotated[int, Field(ge=0, le=30)], ...]
    dropout: BelowOne
    dtype: Literal["float32", "bfloat16"]

    @model_validator(mode="after")
    def _unet(self):
        if self.name != "unet":
            return self
        if not self.multipliers:
            raise ValueError("multipliers must hold one number for each resolution, got ()")
        if self.width % 8:
            raise ValueError(f"width must be a multiple of 8, got {self.width}")
        if any(place >= len(self.multipliers) for place in self.attention):
            raise ValueError(
                f"attention must name resolutions from 0 to {len(self.multipliers) - 1}, "
                f"got {self.attention}"
            )
        return self


class Objective(Section):
    """What is minimised: the bound, DDPM's L_simple, or flow matching's loss, by drawn times."""

    name: Literal["bound", "simple", "flow_matching"]
    times: Literal["uniform", "low_discrepancy", "importance"]


class Trained(shared.Trained):
    """What identifies a trained model."""

    chain: Chain
    network: Network
    objective: Objective

    @model_validator(mode="after")
    def _fits(self):
        chain, name, times = self.chain, self.objective.name, self.objective.times
        if name == "simple" and (chain.schedule == "vdm_learned" or chain.variance == "learned"):
            raise ValueError(
                "objective.name=simple trains neither a variance nor a schedule; set it to bound, "
                "or chain.variance and chain.schedule to fixed ones"
            )
        if name == "simple" and not chain.timesteps:
            raise ValueError("objective.name=simple needs steps; set chain.timesteps above 0")
        if name == "flow_matching" and (chain.schedule != "straight" or chain.timesteps):
            raise ValueError(
                "objective.name=flow_matching draws its times evenly along a straight path; set "
                "chain.schedule to straight and chain.timesteps to 0"
            )
        if times == "importance" and (name != "bound" or not chain.timesteps):
            raise ValueError(
                "objective.times=importance needs steps (chain.timesteps above 0) and "
                "objective.name=bound: it remembers the losses of every step"
            )
        return self


class Ode(Section):
    """How test images are scored by the probability-flow ODE, another model than the bound's.

    Attributes:
      noises: from integers to where the ODE starts.
      num_samples: k of IWAE-k over the noise, from 1 to a multiple of all.
      num_images: the first of the test images; 0: all.
      path: in whose coordinates the solver takes its steps, of every model: vp or straight.
      num_steps: of equal size, even; half of them measure the error.
      largest_error: of the solver, in nats per dimension; an image beyond it has no value.
      trace: exact, or hutchinson, a fresh probe for every draw, whose values bear no logsumexp.
      noise_steps: of the training of the learned noise.
    """

    noises: Annotated[
        tuple[Literal["uniform", "truncated_normal", "learned"], ...], NotEmpty, Distinct
    ]
    num_samples: Annotated[tuple[Count, ...], NotEmpty]
    num_images: CountFrom0
    path: Literal["vp", "straight"]
    num_steps: Annotated[int, Field(ge=2, le=10**6)]
    largest_error: Positive
    trace: Literal["exact", "hutchinson"]
    noise_steps: Count

    @model_validator(mode="after")
    def _legal(self):
        shared.rising_divisors("num_samples", self.num_samples)
        if self.num_steps % 2:
            raise ValueError(f"num_steps must be even, got {self.num_steps}")
        if self.trace == "hutchinson" and self.num_samples != (1,):
            raise ValueError(
                "num_samples must be (1,) with trace=hutchinson: probes drawn anew make a "
                f"logsumexp too large, and no bound; got {self.num_samples}"
            )
        return self


class Evaluation(Section):
    """How the test images are scored.

    Attributes:
      num_images: the first of them; 0: all.
      num_times: of each image, for the bound of continuous time.
      seed: of the noise.
      sample_grid: images drawn; 0: none.
      ode: the probability-flow ODE beside the bound; None: not.
      schedules: under which the same network is scored as well, between the same ends.
    """

    num_images: CountFrom0
    num_times: Count
    seed: Seed
    sample_grid: CountFrom0
    ode: Ode | None = None
    schedules: Annotated[tuple[Literal["vdm_linear", "straight"], ...], Distinct] = ()


class Memory(Section):
    """How much is in memory at once, on each device."""

    images_per_pass: Count


class Diffusion(Trained, shared.Study):
    """The config of `experiments.diffusion`."""

    OF_MODEL: ClassVar[type[shared.Trained]] = Trained
    evaluation: Evaluation
    memory: Memory

    def complete(self, where: str) -> None:
        """Also refuses what is of continuous time of a model that is not."""
        super().complete(where)
        ode = self.evaluation.ode
        asked = "ode" if ode is not None else "schedules" if self.evaluation.schedules else ""
        for name in self.models:
            trained = self.of_model(name)
            if asked and not trained.chain.continuous:
                raise UserError(
                    f"{where}.evaluation.{asked} is of continuous time, and the schedule of model "
                    f"{name!r}, {trained.chain.schedule}, is not; leave it out, or set "
                    "chain.schedule to vdm_linear, vdm_learned or straight."
                )
            if ode is not None and "learned" in ode.noises:
                try:
                    shared.warmup_within("evaluation.ode", ode.noise_steps, trained.optimizer)
                except ValueError as error:
                    raise UserError(f"{where}: {error}") from None
