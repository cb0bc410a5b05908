"""Moments of gradients in blocks of replicates, spread over every device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PyTree

import bounds
from experiments.runtime.mesh import REPLICATES


def block_moments(
    grad_fn: Callable[[PyTree, Array], PyTree],
    params: PyTree,
    key: Array,
    *,
    num_replicates: int,
    num_blocks: int,
    chunk_size: int,
    mesh: Mesh,
) -> bounds.Moments:
    """Gradient moments of consecutive blocks of replicates, spread over the devices.

    Replicate r uses fold_in(key, r) wherever it runs, so the numbers do not depend on the
    devices. Blocks that make the number of devices come out even are computed and dropped.

    Args:
      grad_fn: (params, key) -> gradient.
      params: what the gradient is taken at.
      key: PRNG key.
      num_replicates: R, a multiple of `num_blocks`.
      num_blocks: B.
      chunk_size: replicates in memory at once, on each device.
      mesh: from `device_mesh`.

    Returns:
      `bounds.Moments` whose leaves have a leading axis of B blocks.
    """
    size = num_replicates // num_blocks
    padded = -(-num_blocks // mesh.size) * mesh.size

    def on_device(blocks, params, key):
        # Gradients in replicated values are summed over devices by shard_map; these are
        # gradients of each device's own replicates.
        params, key = jax.tree.map(
            lambda leaf: jax.lax.pcast(leaf, REPLICATES, to="varying"), (params, key)
        )

        def one(block):
            return bounds.gradient_moments(
                lambda k: grad_fn(params, k),
                key,
                num_replicates=size,
                chunk_size=chunk_size,
                first_replicate=block * size,
            )

        return jax.lax.map(one, blocks)

    spread, same = PartitionSpec(REPLICATES), PartitionSpec()
    moments = jax.shard_map(on_device, mesh=mesh, in_specs=(spread, same, same), out_specs=spread)(
        jnp.arange(padded), params, key
    )
    return jax.tree.map(lambda leaf: leaf[:num_blocks], moments)
