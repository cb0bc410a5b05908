"""One device or eight: the same numbers.

Run as a program, this file computes everything on the devices it finds and saves it; the tests
compare both runs with per-replicate and per-datum gradients that know nothing of sharding.
"""

import functools
import os
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from programs import once, start_python
from repository import ROOT

import bounds
from models.exact import linear_gaussian

DIMS, SAMPLES, REPLICATES, DATA = 2, 5, 80, 16
ESTIMATORS = {"pathwise": bounds.pathwise, "dreg": bounds.dreg, "vimco": bounds.vimco}
REPLICATED = ("pathwise", "dreg")  # whose moments are taken
BLOCKS = {8: 1000, 5: 7}  # number of blocks: chunk size; 5 does not divide 8, nor 7 a block of 16
CHUNK_SIZES = (7, 79, 1000)  # none divides 80 replicates
RANGES = ((0, 27), (27, 53))  # first replicate and number
SAMPLE_CHUNKS = (None, 2)  # 2 does not divide 5 samples
SHARED_KEY = ESTIMATORS | {
    "renyi dreg": functools.partial(bounds.dreg, alpha=0.3),
    "piwae": functools.partial(bounds.piwae, num_groups=2),
    "rws": bounds.rws,
    "tvo": functools.partial(bounds.tvo, betas=(0.0, 0.3, 1.0)),
    "chains": lambda model, num_samples: _of_chains(model, num_samples),
}


def _of_chains(model, num_samples):
    """IWAE over annealed chains, as an objective of the model's own parameters."""
    objective = bounds.dreg(bounds.annealed(model, num_bridges=2), num_samples=num_samples)
    betas = bounds.annealing_schedule(4)

    def tied(params, key, x):
        path = bounds.Annealing(params, 0.2, betas, 0.5)
        return objective(bounds.Params(path, params.phi), key, x)

    return tied


def compute():
    """Everything as named arrays, on all devices there are."""
    from experiments.runtime.mesh import REPLICATES as AXIS
    from experiments.runtime.mesh import device_mesh
    from experiments.snr.blocks import block_moments

    data_key, noise_key, key = jax.random.split(jax.random.key(0), 3)
    data = linear_gaussian.generate(data_key, DATA, DIMS)
    params = linear_gaussian.perturb(linear_gaussian.optimum(data), noise_key, 0.5)
    model, mesh = linear_gaussian.make_model(), device_mesh()
    out = {"devices": np.array(jax.device_count())}

    def save(name, tree):
        out.update({f"{name} {i}": np.asarray(v) for i, v in enumerate(jax.tree.leaves(tree))})

    def gradient(given, key):
        """Of both estimators, {name: gradient}, given (params, one datum)."""
        objectives = {n: ESTIMATORS[n](model, num_samples=SAMPLES) for n in REPLICATED}
        return {n: jax.grad(o)(given[0], key, given[1]) for n, o in objectives.items()}

    given = (params, data[0])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(REPLICATES))
    save("replicates", jax.jit(jax.vmap(gradient, (None, 0)))(given, keys))
    for num_blocks, chunk_size in BLOCKS.items():
        blocks = functools.partial(
            block_moments,
            gradient,
            num_replicates=REPLICATES,
            num_blocks=num_blocks,
            chunk_size=chunk_size,
            mesh=mesh,
        )
        save(f"blocks {num_blocks}", jax.jit(blocks)(given, key))

    def cheap_gradient(params, key):
        noise = jax.random.normal(key, (3,))
        return jax.grad(lambda p: jnp.sum(jnp.exp(0.5 * p * noise)))(params)

    def moments(params, key, first, size, chunk_size):
        return bounds.gradient_moments(
            functools.partial(cheap_gradient, params),
            key,
            num_replicates=size,
            chunk_size=chunk_size,
            first_replicate=first,
        )

    moments = jax.jit(moments, static_argnames=("size", "chunk_size"))
    scales = jnp.array([1.0, 0.1, 3.0])
    save("cheap replicates", jax.jit(jax.vmap(cheap_gradient, (None, 0)))(scales, keys))
    everywhere = jax.device_put((scales, key, jnp.asarray(0)), NamedSharding(mesh, P()))
    for chunk_size in CHUNK_SIZES:
        save(f"chunks {chunk_size}", moments(*everywhere, size=REPLICATES, chunk_size=chunk_size))
    parts = []
    for i, (first, size) in enumerate(RANGES):
        device = jax.devices()[i % jax.device_count()]
        arguments = jax.device_put((scales, key, jnp.asarray(first)), device)
        parts.append(jax.device_get(moments(*arguments, size=size, chunk_size=size)))
    save("ranges", bounds.merge_moments(*parts))

    def per_datum(params, keys, data, chunk_size):
        """{estimator: (values, gradients) of each datum}."""
        found = {}
        for name, factory in ESTIMATORS.items():
            objective = factory(model, num_samples=SAMPLES, chunk_size=chunk_size)
            over_data = jax.vmap(jax.value_and_grad(objective), (None, 0, 0))
            found[name] = over_data(params, keys, data)
        return found

    def in_shard_map(params, keys, data):
        def total(params, name):
            objective = ESTIMATORS[name](model, num_samples=SAMPLES)
            return jnp.sum(jax.vmap(objective, (None, 0, 0))(params, keys, data))

        # With params the same everywhere, shard_map sums their gradients over devices.
        totals = {name: jax.grad(total)(params, name) for name in ESTIMATORS}
        varying = jax.tree.map(lambda p: jax.lax.pcast(p, AXIS, to="varying"), params)
        return [per_datum(varying, keys, data, c) for c in SAMPLE_CHUNKS], totals

    # A q that ignores x under one key for all data: z is the same on every device, its weights
    # are not.
    nowhere = jnp.zeros(DIMS)
    blind = model._replace(
        propose=lambda phi, key, x: model.propose(phi, key, nowhere),
        log_q=lambda phi, x, z: model.log_q(phi, nowhere, z),
    )
    blind_objectives = {n: f(blind, num_samples=SAMPLES) for n, f in SHARED_KEY.items()}

    def shared_key_totals(params, key, data):
        def total(params, objective):
            return jnp.sum(jax.vmap(objective, (None, None, 0))(params, key, data))

        return {n: jax.grad(total)(params, o) for n, o in blind_objectives.items()}

    def one_by_one(params, key, data):
        return {
            n: jax.lax.map(lambda x, o=o: jax.grad(o)(params, key, x), data)
            for n, o in blind_objectives.items()
        }

    sharded_totals = jax.shard_map(
        shared_key_totals, mesh=mesh, in_specs=(P(), P(), P(AXIS)), out_specs=P()
    )
    totals = jax.jit(sharded_totals)(params, key, data)
    singles = jax.jit(one_by_one)(params, key, data)

    def chains(params, key, data):
        betas = bounds.annealing_schedule(4)
        one = functools.partial(bounds.ais, blind, betas=betas, step_sizes=0.5, num_leapfrog=3)
        return jax.vmap(one, (None, None, 0))(params, key, data)

    save("plain chains", jax.jit(chains)(params, key, data))
    sharded_chains = jax.shard_map(
        chains, mesh=mesh, in_specs=(P(), P(), P(AXIS)), out_specs=P(AXIS)
    )
    save("own chains", jax.jit(sharded_chains)(params, key, data))

    flow = bounds.diffusion.Diffusion(
        lambda t: bounds.diffusion.linear_gamma(t, gamma_min=-4, gamma_max=5), lambda x: x,
        bounds.diffusion.denoiser(lambda theta, z, gamma: theta * z, prediction="x"),
        lambda theta, x, z_0, x_hat: 0.0,
    )  # fmt: skip

    def densities(theta, z):
        """One z on all devices under a theta of each, too."""
        one = functools.partial(bounds.diffusion.ode_log_prob, flow, num_steps=64)
        fixed = jnp.ones(DIMS)
        return (
            jax.vmap(lambda z: one(theta, None, z).value)(z),
            jax.vmap(lambda z: one(jnp.sum(z) ** 2 / 100, None, fixed).value)(z),
            jax.vmap(lambda z: one(theta, key, z, trace="hutchinson", num_probes=2).value)(z),
        )

    save("plain densities", jax.jit(densities)(0.5, data))
    sharded = jax.shard_map(densities, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS))
    save("own densities", jax.jit(sharded)(0.5, data))
    for name in SHARED_KEY:
        save(f"shared key total {name}", totals[name])
        save(f"shared key singles {name}", singles[name])

    arguments = (params, keys[:DATA], data)
    plain = jax.jit(functools.partial(per_datum, chunk_size=None))(*arguments)
    sharded = jax.shard_map(
        in_shard_map, mesh=mesh, in_specs=(P(), P(AXIS), P(AXIS)), out_specs=(P(AXIS), P())
    )
    own, totals = jax.jit(sharded)(*arguments)
    for name in ESTIMATORS:
        save(f"plain {name}", plain[name])
        save(f"total {name}", totals[name])
        for chunk_size, found in zip(SAMPLE_CHUNKS, own, strict=True):
            save(f"own {name} {chunk_size}", found[name])
    return out


def run_on(num_devices, folder):
    """Results of this file run as a program; one worker computes, the others wait for it."""
    path = folder / f"{num_devices} devices.npz"
    env = {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    options = {"cache": folder / "jax", "devices": num_devices, "env": env}
    once(path, lambda: start_python(__file__, path, **options))
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        folder = folder.parent  # shared by the workers
    # Two workers start at different ends, so that neither waits for the other.
    order = (8, 1) if worker.endswith(tuple("13579")) else (1, 8)
    found = {n: run_on(n, folder) for n in order}
    assert {n: int(r["devices"]) for n, r in found.items()} == {1: 1, 8: 8}
    return found


def leaves(found, name):
    values = [found[f"{name} {i}"] for i in range(sum(k.startswith(f"{name} ") for k in found))]
    assert values
    return values


def replicates(results, name):
    """Gradients of every replicate, leaf by leaf [R, ...]."""
    return [leaf.astype(np.float64) for leaf in leaves(results[1], name)]


def exact_moments(values):
    """Leaves of `Moments` of some replicates, and the size that rounding is measured against."""
    pairs = [(np.array(float(len(values[0]))), np.array(1.0))]
    pairs += [(v.mean(0), np.abs(v).max(0)) for v in values]
    for power in (2, 3, 4):
        deviations = [v - v.mean(0) for v in values]
        pairs += [(np.sum(d**power, 0), np.sum(np.abs(d) ** power, 0)) for d in deviations]
    return zip(*pairs, strict=True)


def assert_close(actual, expected, scale, rtol=1e-5):
    assert len(actual) == len(expected)
    for a, e, s in zip(actual, expected, scale, strict=True):
        assert a.shape == np.shape(e)
        assert np.all(np.abs(a - e) <= rtol * s)


on_one_and_eight = pytest.mark.parametrize("num_devices", [1, 8])


@on_one_and_eight
@pytest.mark.parametrize("num_blocks", BLOCKS)
def test_block_moments_are_those_of_each_block_of_replicates(results, num_blocks, num_devices):
    actual = leaves(results[num_devices], f"blocks {num_blocks}")
    assert {len(leaf) for leaf in actual} == {num_blocks}
    size = REPLICATES // num_blocks
    for block in range(num_blocks):
        own = slice(block * size, (block + 1) * size)
        expected, scale = exact_moments([v[own] for v in replicates(results, "replicates")])
        assert_close([leaf[block] for leaf in actual], expected, scale)


@on_one_and_eight
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_gradient_moments_do_not_depend_on_chunk_size(results, chunk_size, num_devices):
    expected, scale = exact_moments(replicates(results, "cheap replicates"))
    assert_close(leaves(results[num_devices], f"chunks {chunk_size}"), expected, scale)


@on_one_and_eight
def test_ranges_of_replicates_merge_into_the_whole(results, num_devices):
    expected, scale = exact_moments(replicates(results, "cheap replicates"))
    assert_close(leaves(results[num_devices], "ranges"), expected, scale)


@pytest.mark.parametrize("wrong", [0, 40, REPLICATES - 1])
@pytest.mark.parametrize("name", ["replicates", "cheap replicates"])
def test_comparison_of_moments_would_notice_one_wrong_replicate(results, name, wrong):
    values = replicates(results, name)
    expected, scale = exact_moments(values)
    changed = [np.concatenate([v[:wrong], v[1:2], v[wrong + 1 :]]) for v in values]
    with pytest.raises(AssertionError):
        assert_close(next(iter(exact_moments(changed))), expected, scale)


@on_one_and_eight
@pytest.mark.parametrize("chunk_size", SAMPLE_CHUNKS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_values_and_gradients_of_each_datum_survive_shard_map(
    results, name, chunk_size, num_devices
):
    expected = leaves(results[1], f"plain {name}")
    actual = leaves(results[num_devices], f"own {name} {chunk_size}")
    assert_close(actual, expected, [np.abs(e).max() for e in expected])


@on_one_and_eight
@pytest.mark.parametrize("name", ESTIMATORS)
def test_gradients_in_replicated_params_are_summed_over_devices_by_shard_map(
    results, name, num_devices
):
    _, *gradients = leaves(results[1], f"plain {name}")
    actual = leaves(results[num_devices], f"total {name}")
    scale = [np.abs(g).sum(axis=0).max() for g in gradients]
    assert_close(actual, [g.sum(axis=0) for g in gradients], scale)


@on_one_and_eight
@pytest.mark.parametrize("name", SHARED_KEY)
def test_samples_shared_by_all_devices_meet_the_weights_of_each(results, name, num_devices):
    singles = leaves(results[1], f"shared key singles {name}")
    actual = leaves(results[num_devices], f"shared key total {name}")
    scale = [np.abs(g).sum(axis=0).max() for g in singles]
    assert_close(actual, [g.sum(axis=0) for g in singles], scale)


@on_one_and_eight
def test_chains_with_one_start_follow_the_slopes_of_their_own_datum(results, num_devices):
    expected = leaves(results[1], "plain chains")
    assert np.all(np.std(expected[0]) > 0)
    actual = leaves(results[num_devices], "own chains")
    assert_close(actual, expected, [np.abs(e).max() for e in expected])


@on_one_and_eight
def test_densities_of_an_ode_are_those_of_one_device(results, num_devices):
    expected = leaves(results[1], "plain densities")
    assert all(np.std(e) > 0 for e in expected)
    actual = leaves(results[num_devices], "own densities")
    assert_close(actual, expected, [np.abs(e).max() for e in expected])


def main():
    path = sys.argv[1]
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as file:
        np.savez(file, **compute())
    os.replace(file.name, path)


if __name__ == "__main__":
    main()
