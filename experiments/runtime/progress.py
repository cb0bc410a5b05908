"""Progress of long work: a bar on a terminal, log lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from absl import logging
from tqdm import tqdm

T = TypeVar("T")


def track(items: Sequence[T], label: Callable[[T], str], unit: str) -> Iterator[T]:
    """Yields the items, showing which one is at work and how far along it is."""
    if sys.stderr.isatty():
        with tqdm(items, unit=unit) as bar:
            for item in bar:
                bar.set_description(label(item))
                yield item
        return
    for number, item in enumerate(items, 1):
        start = time.perf_counter()
        yield item
        seconds = time.perf_counter() - start
        logging.info("%d/%d  %s  %.1f s", number, len(items), label(item), seconds)
