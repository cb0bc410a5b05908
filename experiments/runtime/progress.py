"""Progress of long work: a bar on a terminal, log lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from absl import logging
from tqdm import tqdm

from experiments.runtime import cluster

T = TypeVar("T")


def track(
    items: Sequence[T], label: Callable[[T], str], unit: str, *, quiet_seconds: float = 0.0
) -> Iterator[T]:
    """Yields the items, showing which one is at work and how far along it is.

    Several processes, all of which go through the same items, end between two of them if one was
    told to. Where there is no terminal, a line for each item, but not within `quiet_seconds` of the
    last.
    """
    if sys.stderr.isatty():
        with tqdm(items, unit=unit) as bar:
            for item in bar:
                cluster.stop_if_told()
                bar.set_description(label(item))
                yield item
        return
    shown = time.perf_counter()
    for number, item in enumerate(items, 1):
        cluster.stop_if_told()
        start = time.perf_counter()
        yield item
        now = time.perf_counter()
        if now - shown >= quiet_seconds:
            shown = now
            logging.info("%d/%d  %s  %.1f s", number, len(items), label(item), now - start)


class Steps:
    """Progress of training: a bar on a terminal, a log line every few seconds elsewhere."""

    def __init__(self, first: int, last: int, batch_size: int, *, quiet_seconds: float = 5.0):
        """From step `first` to `last`."""
        self._last, self._batch_size, self._quiet = last, batch_size, quiet_seconds
        self._step, self._time = first, time.perf_counter()
        self._shown = float("-inf")
        self._recent = 0.0
        self._bar = tqdm(total=last, initial=first, unit="step") if sys.stderr.isatty() else None

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.close()

    def rate(self, step: int) -> float:
        """Examples per second since the last call."""
        now = time.perf_counter()
        self._recent = (step - self._step) * self._batch_size / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return self._recent

    def pause(self, seconds: float) -> None:
        """Leaves time that was not spent on steps out of the rate."""
        self._time += seconds

    def show(self, step: int, values: dict[str, float]) -> None:
        """Shows the step that training has reached, with metrics of it."""
        shown = {"bound": "bound {:.2f} nats", "validation": "validation {:.2f} nats"}
        parts = [text.format(values[name]) for name, text in shown.items() if name in values]
        parts.append(f"{self._recent:,.0f} examples/s")
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(parts))
            self._bar.update(step - self._bar.n)
            return
        now = time.perf_counter()
        if "validation" in values or step == self._last or now - self._shown > self._quiet:
            self._shown = now
            left = (self._last - step) * self._batch_size / max(self._recent, 1e-9)
            logging.info("step %d/%d  %s  %.0f s left", step, self._last, "  ".join(parts), left)

    def leave(self, message: str) -> None:
        """Prints a last line below the bar."""
        if self._bar is not None:
            self._bar.close()
        print(message, file=sys.stderr)
