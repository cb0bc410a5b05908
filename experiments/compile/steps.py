"""What runs on the devices, from the functions that the programs run, and shapes of arguments.

All of it is made within `mesh.described`, where data and parameters are shapes without values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from experiments.compile import stand_ins
from experiments.compile.settings import Entry
from experiments.dalle import build as dalle_build
from experiments.dalle import training as dalle_training
from experiments.dalle.settings import Dalle
from experiments.data import sets
from experiments.dequantize import build as dequantize_build
from experiments.dequantize import training as dequantize_training
from experiments.dequantize.settings import Dequantize
from experiments.diffusion import build as diffusion_build
from experiments.diffusion import training as diffusion_training
from experiments.diffusion.settings import Diffusion
from experiments.masked import build as masked_build
from experiments.masked import evaluation as masked_evaluation
from experiments.masked import training as masked_training
from experiments.masked.settings import Masked
from experiments.runtime import mesh as meshes
from experiments.runtime import settings, subprograms
from experiments.runtime.errors import UserError
from experiments.runtime.fit import Run
from experiments.runtime.fit import described as described_training
from experiments.snr import gaussian, measure
from experiments.snr.problem import ESTIMATORS
from experiments.snr.settings import Gaussian
from experiments.studies import held_out, images
from experiments.studies.settings import Memory, Study
from experiments.vae import build as vae_build
from experiments.vae.settings import Evaluate, Train

S = TypeVar("S", bound=settings.Section)
Dataset = Callable[[str], sets.Dataset]


class Step(NamedTuple):
    """A compiled program with its arguments.

    Attributes:
      function: under jit.
      arguments: what its `lower` takes.
      parameters: how many numbers are trained.
      counted: what the analyses count, for the table: the body of a loop counts once.
      in_loop: whether what is counted is the body of a loop around it all.
      alike: whether that is the same for a chip, however many share the rest.
      precision: of matmuls, None for the default of the device.
    """

    function: Any
    arguments: tuple[Any, ...]
    parameters: int
    counted: str
    in_loop: bool = False
    alike: bool = False
    precision: str | None = None

    def lowered(self) -> jax.stages.Lowered:
        """The program before XLA compiles it."""
        with jax.default_matmul_precision(self.precision):
            return self.function.lower(*self.arguments)


def make(name: str, entry: Entry) -> Step:
    """The program of an entry, for the devices that `mesh.described` names.

    Args:
      name: of the entry, for messages.
      entry: see `settings.Entry`.

    Raises:
      UserError: its config is wrong, or the batch does not fit the number of devices.
    """
    try:
        if entry.part in RUNS:
            run, length = RUNS[entry.part](entry, stand_ins.dataset)
            return _training(run, length, shared=entry.part in SHARED)
        return PARTS[entry.part](entry)
    except UserError as error:
        raise UserError(f"--config.programs.{name}: {error}") from None


def parsed(kind: type[S], spec: str, changes: dict[str, Any]) -> S:
    """The settings of a config, FILE or FILE:VARIANT, with changes."""
    return settings.parse(kind, subprograms.load_config(spec, changes), spec)


def of_model(asked: Study, name: str) -> Any:
    """What a study trains under a name, or under its first where the name is empty."""
    name = name or next(iter(asked.models))
    if name not in asked.models:
        raise UserError(f"model must be one of {', '.join(asked.models)}, got {name!r}.")
    return asked.of_model(name)


def check_batch(batch: int, devices: int, *, shared: bool) -> None:
    """Refuses a number of devices of which some would repeat all that others compute.

    Args:
      batch: examples in a step.
      devices: how many.
      shared: whether devices that do not divide the batch share it, see `mesh.mean_over`.

    Raises:
      UserError: with numbers that fit.
    """
    if batch >= devices and (shared or batch % devices == 0):
        return
    fitting = max(n for n in range(1, min(batch, devices) + 1) if shared or batch % n == 0)
    raise UserError(
        f"a batch of {batch} does not fit {devices} chips, some of which would repeat what others "
        f"compute; choose {fitting} chips at most, or a training.batch_size that is a multiple of "
        f"{devices} in changes."
    )


def _training(run: Run, length: int, *, shared: bool) -> Step:
    check_batch(run.batch_size, meshes.device_mesh(meshes.DATA).size, shared=shared)
    function, arguments = described_training(run, length)
    counted = f"a step of {run.batch_size} examples"
    return Step(function, arguments, _size(arguments[0].params), counted, in_loop=True)


def _size(params: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _train(entry: Entry, dataset: Dataset) -> tuple[Run, int]:
    asked = parsed(Train, entry.config, entry.changes)
    problem = vae_build.problem_of(dataset(asked.data.name), asked)
    return vae_build.make_run(problem, asked, asked.seed), asked.records.log_every


def _evaluate(entry: Entry) -> Step:
    asked = parsed(Train, entry.config, entry.changes)
    if not entry.evaluation:
        raise UserError("evaluation is empty; name a config, e.g. configs/evaluate.py.")
    wanted = parsed(Evaluate, entry.evaluation, {})
    problem = vae_build.problem_of(stand_ins.dataset(asked.data.name), asked)
    params = jax.eval_shape(lambda: vae_build.init_params(problem, jax.random.key(0)))
    pixels = problem.dataset.train[0].size
    many, memory = wanted.evaluation.num_samples, wanted.memory
    function = held_out.evaluator(
        problem.vae.model, wanted.evaluation.few_samples, many, memory.samples_per_pass
    )
    image = jax.ShapeDtypeStruct((pixels,), jnp.float32)
    return _pass(function, params, image, memory, f"{many:,} samples")


def _masked_evaluate(entry: Entry) -> Step:
    asked = parsed(Masked, entry.config, entry.changes)
    problem = images.of_dataset(stand_ins.dataset(asked.data.name))
    model = masked_build.make_model(problem, of_model(asked, entry.model))
    many, memory = asked.evaluation.num_counts, asked.memory
    function = masked_evaluation.elbo_of(model, many, memory.samples_per_pass)
    params = jax.eval_shape(model.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((model.length,), jnp.int32)
    return _pass(function, params, image, memory, f"{many} masks")


def _pass(
    function: Any, params: PyTree, image: jax.ShapeDtypeStruct, memory: Memory, of: str
) -> Step:
    arguments = held_out.described(params, image, images_per_pass=memory.images_per_pass)
    counted = f"{memory.images_per_pass} images a chip, {memory.samples_per_pass} of {of}"
    return Step(function, arguments, _size(params), counted, alike=True)


def _of_images(
    kind: type[Study], make_model: Callable[..., Any], make_run: Callable[..., Run]
) -> Callable[[Entry, Dataset], tuple[Run, int]]:
    def of(entry: Entry, dataset: Dataset) -> tuple[Run, int]:
        asked: Any = parsed(kind, entry.config, entry.changes)
        own, problem = of_model(asked, entry.model), images.of_dataset(dataset(asked.data.name))
        run = make_run(problem, make_model(problem, own), own, asked.seeds[0])
        return run, asked.records.log_every

    return of


def _dalle(entry: Entry) -> Step:
    asked = parsed(Dalle, entry.config, entry.changes)
    own = of_model(asked, entry.model)
    data = stand_ins.captioned(own)
    model = dalle_build.make_model(data._replace(problem=stand_ins.few(data.problem)), own)
    if entry.part == "dalle":
        run = dalle_training.make_dvae_run(data, model, own, asked.seeds[0])
    else:
        run = dalle_training.make_prior_run(data, model, own, asked.seeds[0], None)
        run = run._replace(init=lambda: model.init(jax.random.key(0)))
    return _training(run, asked.records.log_every, shared=False)


def _snr(entry: Entry) -> Step:
    asked = parsed(Gaussian, entry.config, entry.changes)
    count, estimator = asked.num_samples[-1], asked.estimators[-1]
    setting = gaussian.Setting(asked.seed, asked.toy, asked.toy.num_dims)
    sizes = gaussian.sizes(asked, count)
    function = measure.program(ESTIMATORS[estimator](setting.model, num_samples=count), **sizes)
    arguments = setting.params, setting.key, setting.x
    return Step(
        function, meshes.replicate(arguments, meshes.device_mesh()), _size(setting.params),
        f"{sizes['chunk_size']} gradients a chip, of {sizes['num_replicates']:,} in all",
        alike=True, precision="highest",  # as `experiments.snr` measures
    )  # fmt: skip


RUNS: dict[str, Callable[[Entry, Dataset], tuple[Run, int]]] = {
    "train": _train,
    "dequantize": _of_images(Dequantize, dequantize_build.make_model, dequantize_training.make_run),
    "diffusion": _of_images(Diffusion, diffusion_build.make_model, diffusion_training.make_run),
    "masked": _of_images(Masked, masked_build.make_model, masked_training.make_run),
}
"""(entry, name of a data set -> its images) -> what is trained, and its steps in one call."""
SHARED = {"train", "dequantize"}  # whose batches devices share that do not divide them
PARTS: dict[str, Callable[[Entry], Step]] = {
    "evaluate": _evaluate,
    "masked_evaluate": _masked_evaluate,
    "dalle": _dalle,
    "dalle_prior": _dalle,
    "snr": _snr,
}
