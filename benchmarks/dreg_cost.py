"""The DReG gradient over the pathwise one on Burda's one-layer VAE, K = 50, batch 100.

FLOPs are those XLA counts in the compiled program, which shows whether its two forward passes
were merged; times are of calls in turns. The last row puts the gradients inside `lax.scan`, as a
trainer that runs many steps in one call does: XLA merges less there, and its count of FLOPs sees
one turn of the loop.
"""

import statistics

import jax

import bounds
from benchmarks.burda import batch_loss, make_problem
from benchmarks.timing import Row, compile_seconds, interleaved, ratio

NUM_SAMPLES = 50
ROUNDS = 7
SCAN_STEPS = 3
FLOPS_LIMIT = 1.05
TIME_LIMIT = 1.1
ESTIMATORS = {"pathwise": bounds.pathwise, "dreg": bounds.dreg}


def run() -> list[Row]:
    vae, params, images = make_problem()

    def gradient(estimator):
        objective = estimator(vae.model, num_samples=NUM_SAMPLES)
        return jax.grad(lambda params, key: batch_loss(objective, params, key, images))

    def one_step(estimator):
        return gradient(estimator)

    def many_steps(estimator):
        def program(params, key):
            def step(params, k):
                # The step must need its gradient, or XLA would compute only the last one.
                update = gradient(estimator)(params, k)
                return jax.tree.map(lambda p, g: p - 1e-6 * g, params, update), None

            return jax.lax.scan(step, params, jax.random.split(key, SCAN_STEPS))[0]

        return program

    args = (params, jax.random.key(2))

    def compare(build):
        compiled = {n: compile_seconds(build(e), *args)[0] for n, e in ESTIMATORS.items()}
        calls = {name: (lambda c=c: c(*args)) for name, c in compiled.items()}
        return compiled, interleaved(calls, rounds=ROUNDS)

    def time_row(name, seconds):
        milli = [f"{1e3 * statistics.median(seconds[n]):.0f} ms" for n in ("dreg", "pathwise")]
        measured = ratio(seconds["dreg"], seconds["pathwise"])
        return Row(name, measured, high=TIME_LIMIT, detail=" / ".join(milli))

    compiled, seconds = compare(one_step)
    flops = {name: c.cost_analysis()["flops"] for name, c in compiled.items()}
    _, scan_seconds = compare(many_steps)
    size = f"K={NUM_SAMPLES} batch {images.shape[0]}"
    return [
        Row(
            f"dreg_cost: FLOPs, dreg / pathwise, {size}",
            flops["dreg"] / flops["pathwise"],
            high=FLOPS_LIMIT,
            detail=f"{flops['dreg'] / 1e9:.2f} / {flops['pathwise'] / 1e9:.2f} GFLOP",
        ),
        time_row(f"dreg_cost: time, dreg / pathwise, {size}", seconds),
        time_row(f"dreg_cost: the same, {SCAN_STEPS} steps in a scan", scan_seconds),
    ]
