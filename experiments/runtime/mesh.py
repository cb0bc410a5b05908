"""Spreading work over every device, of one process or of many."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

REPLICATES = "replicates"
DATA = "data"
_described: contextvars.ContextVar[Sequence[jax.Device]] = contextvars.ContextVar(
    "described", default=()
)


@contextlib.contextmanager
def described(devices: Sequence[jax.Device]) -> Iterator[None]:
    """Within it these are all devices there are, and arrays on them are shapes without values.

    So a program can be compiled for devices that are not here: what it would put on them is
    described by `jax.ShapeDtypeStruct`, which `jax.jit(f).lower` takes in place of arrays.
    """
    token = _described.set(devices)
    try:
        yield
    finally:
        _described.reset(token)


def all_devices() -> Sequence[jax.Device]:
    """Those of JAX, or those `described`."""
    return _described.get() or jax.devices()


def device_mesh(axis: str = REPLICATES, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of the devices, by default all, along one axis."""
    devices = all_devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts the same values on every device; each process brings all of them."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if _described.get():
        return jax.tree.map(lambda leaf: _shape(leaf, sharding), tree)

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


def _shape(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    dtype = leaf.dtype
    if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended):  # keys have types of their own
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)


def mean_over(
    function: Callable[[PyTree, PyTree], Array],
    params: PyTree,
    data: PyTree,
    mesh: Mesh,
    at_once: int = 0,
) -> Array:
    r"""Inside jit: the mean of a function over data that the devices share.

    .. math:: \frac1N \sum_{n=1}^N f(\mathrm{params}, x_n)

    Where the devices do not divide N, some compute a datum again that others have too, and it is
    left out of the sum: N = 20 on 8 devices costs each the time of 3 and not of 20. The gradients
    in `params` are added up over the devices all at once, in one message where XLA joins them.

    Args:
      function: (params, datum) -> a number.
      params: the same on every device; floating.
      data: a pytree with leading axes of N.
      mesh: the devices, along one axis.
      at_once: data of a device whose gradients are taken together, and then added to those of
        others, in memory that does not grow with N; 0 for all. `data` gets no gradient then.

    Returns:
      The mean, on every device.
    """
    count = len(jax.tree.leaves(data)[0])
    each = -(-count // mesh.size)
    in_parts = 0 < at_once < each
    if mesh.size == 1 and not in_parts:
        return jnp.mean(jax.vmap(function, (None, 0))(params, data))
    if in_parts:
        each = -(-each // at_once) * at_once
    place = np.arange(each * mesh.size)
    if len(place) > count:
        data = jax.tree.map(lambda leaf: leaf[np.minimum(place, count - 1)], data)
    counts = jnp.asarray(place < count)

    def total(params, data, counts):
        return jnp.sum(jnp.where(counts, jax.vmap(function, (None, 0))(params, data), 0))

    if mesh.size == 1:
        return _by_parts(total, at_once, lambda tree: tree)(params, data, counts) / count
    (axis,) = mesh.axis_names

    def vary(tree):
        return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axis, to="varying"), tree)

    def share(params, data, counts):
        # shard_map adds the gradient up where this is done: here, once, and not at each use.
        own = vary(params)
        sum_of = _by_parts(total, at_once, vary) if in_parts else total
        return jax.lax.psum(sum_of(own, data, counts), axis) / count

    same, spread = PartitionSpec(), PartitionSpec(axis)
    shared = jax.shard_map(share, mesh=mesh, in_specs=(same, spread, spread), out_specs=same)
    return shared(params, data, counts)


def _by_parts(
    total: Callable[..., Array], at_once: int, vary: Callable[[PyTree], PyTree]
) -> Callable[..., Array]:
    """A sum over data with its gradient in params, which its first pass takes part by part.

    Args:
      total: (params, data, which of them count) -> their sum.
      at_once: data of a part; it divides all of them.
      vary: makes constants what a loop over the data of one device may add to.
    """

    @jax.custom_vjp
    def summed(params, data, counts):
        return forward(params, data, counts)[0]

    def forward(params, data, counts):
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(-1, at_once, *leaf.shape[1:]), (data, counts)
        )
        value_and_grad = jax.value_and_grad(total)

        def add(sums, part):
            return jax.tree.map(jnp.add, sums, value_and_grad(params, *part)), None

        shapes = jax.eval_shape(value_and_grad, params, *jax.tree.map(lambda leaf: leaf[0], parts))
        start = vary(jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes))
        return jax.lax.scan(add, start, parts)[0]

    def backward(gradient, cotangent):
        return jax.tree.map(lambda leaf: cotangent * leaf, gradient), None, None

    summed.defvjp(forward, backward)
    return summed


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
