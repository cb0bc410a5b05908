"""What the benchmarks of training share: steps of the trainer, against those of PyTorch."""

import statistics
import time

from benchmarks.timing import Row, ratio, version
from experiments.runtime import trainer


def of_trainer(loss_fn, params, stream, optimizer, key, *, num_steps: int, chunk: int):
    """() -> seconds of `num_steps` steps in chunks, behind a first chunk that compiles."""
    state = trainer.init_state(params, optimizer)

    def contest() -> float:
        times: list[float] = []
        trainer.train(
            loss_fn,
            state,
            stream,
            optimizer,
            key,
            num_steps=chunk + num_steps,
            steps_per_chunk=chunk,
            on_chunk=lambda state, means: times.append(time.perf_counter()),
        )
        return times[-1] - times[0]

    return contest


def against_torch(name: str, seconds: dict[str, list[float]], steps: int, low: float) -> Row:
    """How many times the steps per second of "PyTorch" the "trainer" makes."""
    detail = f"{per_step(seconds, 'PyTorch', steps)} / {per_step(seconds, 'trainer', steps)} a step"
    speed = ratio(seconds["PyTorch"], seconds["trainer"])
    return Row(name, speed, low=low, detail=f"{detail}, PyTorch {version('torch')}")


def per_step(seconds: dict[str, list[float]], name: str, steps: int) -> str:
    """Median time of a step, as text."""
    return f"{1e3 * statistics.median(seconds[name]) / steps:.2f} ms"
