"""Devices to compile for, which need not be here, and what a chip of each kind can do."""

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from experiments.runtime.errors import UserError

HERE = "here"  # the devices that JAX finds
EXAMPLES = (
    "v5e:2x4, v6e:2x4 or v5p:2x2x1, v5e:4x4 for a pod of several hosts, h200:8 for GPUs, h200:2x8 "
    "for two hosts of them"
)


class Chip(NamedTuple):
    """What its maker states.

    Attributes:
      flops: of bfloat16 in matmuls, a second.
      memory: bytes.
      bandwidth: of the memory, bytes a second.
      network: of all its links to other chips together, bytes a second.
    """

    flops: float
    memory: float
    bandwidth: float
    network: float


# Google's pages of the TPU versions and NVIDIA's data sheets (SXM, without sparsity).
CHIPS: dict[str, Chip] = {
    "TPU v4": Chip(275e12, 32 * 2**30, 1228e9, 300e9),
    "TPU v5 lite": Chip(197e12, 16 * 2**30, 819e9, 200e9),
    "TPU v5": Chip(459e12, 95 * 2**30, 2765e9, 600e9),
    "TPU v6 lite": Chip(918e12, 32 * 2**30, 1640e9, 448e9),
    "NVIDIA H100": Chip(989e12, 80e9, 3350e9, 900e9),
    "NVIDIA H200": Chip(989e12, 141e9, 4800e9, 900e9),
}
_GPUS = {"h100": "NVIDIA H100", "h200": "NVIDIA H200"}
_GPU = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 l2_cache_size: 52428800
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f} device_memory_size: {memory:.0f}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 }}
runtime_version {{ major: 13 }}
device_description_str: "{name}"
"""


class Topology(NamedTuple):
    """Devices of one kind.

    Attributes:
      devices: all of them.
      chip: what one can do; None where that is not known.
      compiler: name and version of the package that compiles; None for that of JAX.
      options: for `jax.stages.Lowered.compile`.
    """

    devices: Sequence[jax.Device]
    chip: Chip | None
    compiler: str | None
    options: dict[str, Any]

    @property
    def described(self) -> str:
        """In words."""
        hosts = len({device.process_index for device in self.devices})
        return f"{len(self.devices)} of {self.devices[0].device_kind}, hosts: {hosts}"


def make(name: str) -> Topology:
    """The devices of a topology.

    Args:
      name: such as v5e:2x4, or `here`.

    Raises:
      UserError: there is no such topology, or its compiler is not installed.
    """
    if name == HERE:
        devices = jax.devices()
        return Topology(devices, CHIPS.get(devices[0].device_kind), None, {})
    if found := re.fullmatch(r"(h\d+):(?:(\d+)x)?(\d+)", name):
        if found[1] in _GPUS:
            return _gpus(name, _GPUS[found[1]], int(found[2] or 1), int(found[3]))
    elif re.fullmatch(r"v\d+[a-z]*:\d+(x\d+){1,2}", name):
        return _tpus(name)
    raise UserError(f"--topology must be {HERE}, or such as {EXAMPLES}; got {name!r}.")


def _tpus(name: str) -> Topology:
    compiler = installed("libtpu", "libtpu-nightly")
    if compiler is None:
        raise UserError(
            f"--topology={name} needs libtpu, which compiles for TPUs on any Linux machine; "
            "pip install -e '.[experiments,tpu]' brings it."
        )
    devices = _described(name, platform="tpu", topology_name=name)
    kind = devices[0].device_kind
    if kind not in CHIPS:
        raise UserError(
            f"--topology={name} is of {kind!r}, of which nothing is known here; add it to CHIPS in "
            "experiments/compile/topologies.py."
        )
    return Topology(devices, CHIPS[kind], compiler, {})


def _gpus(name: str, kind: str, hosts: int, each: int) -> Topology:
    compiler = installed("jax-cuda13-plugin")
    if compiler is None:
        raise UserError(
            f"--topology={name} needs jax-cuda13-plugin, which compiles for NVIDIA's GPUs on any "
            "Linux machine; pip install -e '.[experiments,cuda]' brings it."
        )
    chip = CHIPS[kind]
    config = _GPU.format(name=kind, bandwidth=chip.bandwidth, memory=chip.memory)
    devices = _described(name, platform="cuda", target_config=config, topology=f"1x{hosts}x{each}")
    # What would be tried out on the device to choose the fastest kernels.
    options = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    return Topology(devices, chip, compiler, options)


def _described(name: str, **how: Any) -> Sequence[jax.Device]:
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(**how).devices
    except Exception as error:  # XLA's own error types are not public
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"--topology={name} does not exist ({reason}); choose such as {EXAMPLES}."
        ) from None


def installed(*names: str) -> str | None:
    """Name and version of the first of these packages that is installed."""
    for name in names:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
