"""Spreading work over every device, of one process or of many."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

REPLICATES = "replicates"
DATA = "data"


def device_mesh(axis: str = REPLICATES, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of the devices, by default all, along one axis."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts the same values on every device; each process brings all of them."""
    sharding = NamedSharding(mesh, PartitionSpec())

    def put(leaf):
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        if jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            # NumPy, which the values pass through, knows no keys.
            return jax.random.wrap_key_data(
                put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf)
            )
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.tree.map(put, tree)


def split(batch: PyTree, mesh: Mesh) -> PyTree:
    """Inside jit: splits the leading axis of every leaf over the devices.

    A leaf whose axis they do not divide evenly stays whole on each of them: the same numbers, but
    no faster than one device.
    """
    if mesh.size == 1:
        return batch
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    return jax.tree.map(
        lambda leaf: (
            leaf if len(leaf) % mesh.size else jax.lax.with_sharding_constraint(leaf, sharding)
        ),
        batch,
    )


def gather(batch: PyTree, mesh: Mesh) -> PyTree:
    """Inside jit: puts all of every leaf on each device."""
    if mesh.size == 1:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec()))


def local(tree: PyTree) -> PyTree:
    """Replicated values as arrays of this process alone; unchanged where there is no other one.

    What is computed from them then is every process's own, and the same on each.
    """
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda leaf: jnp.asarray(to_host(leaf)), tree)


def to_host(value: Array) -> Any:
    """A replicated value as NumPy, also where other processes hold some of its devices."""
    return np.asarray(value.addressable_data(0))
