"""Devices to compile for, which need not be here, and what a chip of each kind can do."""

import importlib.metadata
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax

from experiments.runtime.errors import UserError

HERE = "here"  # the devices that JAX finds


class Chip(NamedTuple):
    """What its maker states.

    Attributes:
      flops: of bfloat16, a second.
      memory: bytes.
      bandwidth: of the memory, bytes a second.
      network: of all its links to other chips together, bytes a second.
    """

    flops: float
    memory: float
    bandwidth: float
    network: float


# Google's pages of the TPU versions: peak compute, HBM capacity (GiB) and bandwidth, and
# bidirectional inter-chip bandwidth per chip.
CHIPS: dict[str, Chip] = {
    "TPU v4": Chip(275e12, 32 * 2**30, 1228e9, 300e9),
    "TPU v5 lite": Chip(197e12, 16 * 2**30, 819e9, 200e9),
    "TPU v5": Chip(459e12, 95 * 2**30, 2765e9, 600e9),
    "TPU v6 lite": Chip(918e12, 32 * 2**30, 1640e9, 448e9),
}
_EXAMPLES = "v5e:2x4, v6e:2x4, v5p:2x2x1, or v5e:4x8 for a pod of several hosts"


def devices(name: str) -> Sequence[jax.Device]:
    """The devices of a topology.

    Args:
      name: such as v5e:2x4, or `here`.

    Raises:
      UserError: there is no such topology, or libtpu, which has the compiler, is not installed.
    """
    if name == HERE:
        return jax.devices()
    if not re.fullmatch(r"v\d+[a-z]*:\d+(x\d+){1,2}", name):
        raise UserError(f"--topology must be {HERE} or such as {_EXAMPLES}; got {name!r}.")
    if compiler() is None:
        raise UserError(
            f"--topology={name} needs libtpu, which holds the compiler and no TPU is needed for; "
            "pip install -e '.[experiments,tpu]' brings it, on Linux."
        )
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(name, platform="tpu").devices
    except Exception as error:  # XLA's own error types are not public
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"--topology={name} does not exist ({reason}); it must be such as {_EXAMPLES}."
        ) from None
    if found[0].device_kind not in CHIPS:
        raise UserError(
            f"--topology={name} is of {found[0].device_kind!r}, of which nothing is known here; "
            f"add it to CHIPS of {os.path.join('experiments', 'compile', 'topologies.py')}."
        )
    return found


def compiler() -> str | None:
    """Name and version of the installed compiler for TPUs, if there is one."""
    for name in ("libtpu", "libtpu-nightly"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
