"""The pages' ways from other libraries to this one, as they are printed."""

import re

import jax
import numpy as np
import pytest
from jax.scipy.stats import norm
from oracles import flat
from repository import ROOT

import bounds

PAGE = (ROOT / "docs/bring-your-model.md").read_text()
AUDIT = (ROOT / "docs/audit.md").read_text()
README = (ROOT / "README.md").read_text()


def blocks(text, mark):
    found = re.findall(rf"<!-- {mark} -->\s*^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(found) == text.count(f"<!-- {mark} -->") > 0
    return found


def run(code):
    names = {}
    exec(compile(code, "page", "exec"), names)
    return names


def assert_alive(grads):
    """Gradients that are finite and reach every parameter."""
    for leaf in jax.tree.leaves(grads):
        assert np.all(np.isfinite(leaf))
        assert np.any(leaf != 0)


def test_a_numpyro_model_and_the_number_of_numpyro_are_audited():
    (code,) = blocks(AUDIT, "example")
    run(code)


@pytest.mark.parametrize("code", blocks(PAGE, "example"), ids=["numpyro", "distributions"])
def test_examples_run(code):
    assert_alive(run(code)["grads"])


def test_a_conditional_flow_is_the_change_of_variables_of_its_noise_at_each_x():
    pytest.importorskip("flowjax", reason="flowjax is not installed")
    (code,) = blocks(PAGE, "conditional flow")
    with jax.numpy_rank_promotion("allow"):
        names = run(code)
        assert_alive(names["grads"])
        flow, model, phi = names["flow"], names["model"], names["phi"]
        for x in (names["x"], -names["x"]):

            def draw(noise, x=x):
                return flow.bijection.transform(noise, x)

            noise = jax.random.normal(jax.random.key(2), (5, 2))
            slope = np.linalg.slogdet(jax.vmap(jax.jacfwd(draw))(noise))[1]
            z = jax.vmap(draw)(noise)
            found = jax.vmap(lambda z, x=x: model.log_q(phi, x, z))(z)
            np.testing.assert_allclose(found, norm.logpdf(noise).sum(-1) - slope, rtol=1e-3)


def library_of(code):
    return re.match(r"(?:import|from) (\w+)", code)[1] + (".nnx" if "nnx" in code else "")


@pytest.mark.parametrize("code", blocks(PAGE, "network"), ids=library_of)
def test_a_network_becomes_a_model_in_fifteen_lines(code):
    assert len(code.splitlines()) <= 15
    pytest.importorskip(library_of(code), reason=f"{library_of(code)} is not installed")
    names = run(blocks(PAGE, "shared")[0] + code)
    model, params, x = names["model"], names["params"], names["x"]
    key = jax.random.key(0)
    found = {
        name: jax.jit(jax.grad(factory(model, num_samples=4)))(params, key, x)
        for name, factory in (("pathwise", bounds.pathwise), ("dreg", bounds.dreg))
    }
    for grads in found.values():
        assert_alive(grads)
    # The estimators share theta's gradient, and differ in phi's.
    np.testing.assert_allclose(
        flat(found["dreg"].theta), flat(found["pathwise"].theta), rtol=1e-4, atol=1e-5
    )
    assert np.max(np.abs(flat(found["dreg"].phi) - flat(found["pathwise"].phi))) > 1e-3


def test_the_readme_goes_from_numpyro_to_gradient_snr_and_likelihood():
    """The second example goes on where the first ends."""
    names = run(blocks(README, "example")[0] + blocks(README, "numpyro example")[0])
    assert_alive(names["grads"])
    assert_alive(names["snr"])
    exact = norm.logpdf(names["x"], 0.3, np.sqrt(2.0))
    assert abs(names["log_p"] - exact) < 4 * names["diagnostics"].standard_error < 0.1
