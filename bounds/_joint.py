r"""The joint bound of DALL-E: captions y, images x and tokens z that q sees through x alone.

    log p(x, y) >= B_1 = E_q[log p(x | y, z)] - D,
    D = E_q[log q(z | x) - log p(y, z)] = KL(q(z | x) || p(z | y)) - log p(y),

with the gap KL(q(z | x) || p(z | x, y)). A weight beta makes it B_beta = B_1 - (beta - 1) D:

* beta >= 1: a lower bound, and looser, wherever D >= 0, which a discrete y ensures: then
  D >= -log p(y) >= 0. It need not be 1, as is often said.
* beta < 1: a lower bound if and only if (1 - beta) D <= KL(q(z | x) || p(z | x, y)).
* weights a, b >= 1 on log p(y) and log p(z | y), both <= 0, keep it one; smaller ones need not.
* a relaxed z in the reconstruction breaks it at every beta; a density of y, whose D may be
  negative, breaks beta > 1 and weights > 1.

Source: Ramesh et al. 2021 (arXiv 2102.12092), eq. 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from bounds._checks import at_least_float32, check_at_least, check_fits, check_scalar
from bounds._densities import picked
from bounds._types import Key, LatentModel, Params


class JointModel(NamedTuple):
    r"""q(z | x), p(y, z) and p(x | y, z) for ONE datum (x, y); z is N tokens, each one of K.

    .. math:: q(z | x) = \prod_{n=1}^N q(z_n | x), \qquad
       p(y, z) = p(y) \prod_{n=1}^N p(z_n | y, z_1, \dots, z_{n-1})

    Attributes:
      encode: (phi, x) -> logits [N, K] of q(z | x), under which tokens are independent.
      prior: (theta, y, z [N]) -> (log p(y) [], logits [N, K] of p(z_n | y, z_1 .. z_{n-1})); row n
        must not depend on z_n or what comes after it.
      log_px: (theta, x, y, codes [N, K]) -> [], log p(x | y, z) in nats; a row of `codes` is the
        one-hot vector of a token, or between such vectors where z is relaxed.

    A model of x alone has log p(y) = 0 and, in the first stage of DALL-E, logits of 0: a uniform
    prior.
    """

    encode: Callable[[PyTree, PyTree], Any]
    prior: Callable[[PyTree, PyTree, Any], tuple[Any, Any]]
    log_px: Callable[[PyTree, PyTree, PyTree, Any], Any]


class Terms(NamedTuple):
    r"""The parts of the joint bound for one datum and one z ~ q, in nats.

    .. math:: B_\beta = \mathbb E_q[\log p(x | y, z)] - \beta D, \qquad
       D = \mathbb E_q[\log q(z | x) - \log p(y) - \log p(z | y)]

    Attributes:
      reconstruction: log p(x | y, z).
      log_q: log q(z | x), or its mean.
      log_text: log p(y).
      log_image: log p(z | y), or its mean given the tokens before each.
    """

    reconstruction: Float[Array, "..."]
    log_q: Float[Array, "..."]
    log_text: Float[Array, "..."]
    log_image: Float[Array, "..."]

    @property
    def divergence(self) -> Float[Array, "..."]:
        """D, whose mean is KL(q(z | x) || p(z | y)) - log p(y)."""
        return self.log_q - self.log_image - self.log_text


def latent(
    model: JointModel,
    *,
    beta: ArrayLike = 1.0,
    text_weight: ArrayLike = 1.0,
    image_weight: ArrayLike = 1.0,
) -> LatentModel:
    r"""The joint model as a `LatentModel` of data (x, y), for every bound and estimator.

    .. math:: \log w = \tfrac1\beta \log p(x | y, z) + a \log p(y) + b \log p(z | y) - \log q(z | x)

    beta times its ELBO is :math:`B_\beta`, beta times its IWAE rises with the samples to the
    supremum :math:`\beta \log \sum_z p(y, z) \, p(x | y, z)^{1/\beta}` of that over q (a = b = 1),
    at beta = 1 to log p(x, y). z is discrete: train it by `vimco`, `reinforce` or `rws`.

    Args:
      model: the model.
      beta: above 0; for beta = 0 use `enumerated` or `relaxed`.
      text_weight: a.
      image_weight: b.

    Returns:
      A `LatentModel` whose x is (x, y) and whose z is N integers.

    Raises:
      ValueError: a known beta is not above 0, or a known weight is below 0.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.joint.JointModel(
      ...     encode=lambda phi, x: phi[x],
      ...     prior=lambda theta, y, z: (jnp.log(0.5), jnp.zeros((1, 3))),
      ...     log_px=lambda theta, x, y, codes: jnp.log(codes[0] @ theta[:, x]))
      >>> params = bounds.Params(jnp.full((3, 2), 0.5), jnp.zeros((2, 1, 3)))
      >>> log_w = bounds.log_weights(
      ...     bounds.joint.latent(model), params, jax.random.key(0), (1, 0), num_samples=4)
      >>> [round(float(v), 4) for v in log_w]  # p(x, y) = 1/4, and q is the posterior
      [-1.3863, -1.3863, -1.3863, -1.3863]

    Source: Ramesh et al. 2021 (arXiv 2102.12092), eq. 1.
    """
    beta = check_at_least(
        "beta", beta, 0.0, strictly=True,
        instead="use bounds.joint.enumerated or bounds.joint.relaxed for a beta of 0",
    )  # fmt: skip
    text_weight = check_at_least("text_weight", text_weight, 0.0)
    image_weight = check_at_least("image_weight", image_weight, 0.0)

    def log_q(phi, datum, z):
        return _log_prob(_log_probs(model.encode(phi, datum[0])), z)

    def propose(phi, key, datum):
        log_probs = _log_probs(model.encode(phi, datum[0]))
        z = jax.random.categorical(key, log_probs)
        return z, _log_prob(log_probs, z)

    def log_p(theta, datum, z):
        found = generative(model, theta, datum, z)
        log_image = _log_prob(found.log_prior, z)
        weighted = _times(text_weight, found.log_text) + _times(image_weight, log_image)
        return found.reconstruction / beta + weighted

    return LatentModel(propose, log_q, log_p)


def terms(
    model: JointModel, params: Params, key: Key, datum: PyTree, *, analytic: bool = True
) -> Terms:
    r"""The parts of the joint bound by one draw of z.

    With `analytic` the divergence is a sum of KLs in closed form, each given the tokens before it,

    .. math:: D = \sum_n \mathrm{KL}(q(z_n | x) \| p(z_n | y, z_{<n})) - \log p(y),

    and otherwise the log-ratio :math:`\log q(z | x) - \log p(y, z)`. Both have the mean D; the
    first varies less, and only the second may enter a logsumexp (see `latent`).

    Args:
      model: the model.
      params: its parameters.
      key: PRNG key.
      datum: (x, y).
      analytic: whether to take means over each token where they have a closed form.

    Returns:
      `Terms` of scalars.

    Raises:
      ValueError: a function of the model returns a wrong shape.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.joint.JointModel(
      ...     encode=lambda phi, x: phi[x],
      ...     prior=lambda theta, y, z: (jnp.log(0.5), jnp.zeros((1, 3))),
      ...     log_px=lambda theta, x, y, codes: jnp.log(codes[0] @ theta[:, x]))
      >>> params = bounds.Params(jnp.full((3, 2), 0.5), jnp.zeros((2, 1, 3)))
      >>> terms = bounds.joint.terms(model, params, jax.random.key(0), (1, 0))
      >>> round(float(terms.divergence), 4)  # KL = 0, -log p(y) = log 2
      0.6931

    Source: Ramesh et al. 2021 (arXiv 2102.12092), eq. 1.
    """
    log_probs = _log_probs(model.encode(params.phi, datum[0]))
    z = jax.random.categorical(key, log_probs)
    found = generative(model, params.theta, datum, z, shape=log_probs.shape)
    if analytic:
        return _analytic(found, log_probs)
    log_q, log_image = _log_prob(log_probs, z), _log_prob(found.log_prior, z)
    return Terms(found.reconstruction, log_q, found.log_text, log_image)


def bound(
    parts: Terms,
    *,
    beta: ArrayLike = 1.0,
    text_weight: ArrayLike = 1.0,
    image_weight: ArrayLike = 1.0,
) -> Float[Array, "..."]:
    r"""B_beta from its parts, elementwise.

    .. math:: \log p(x | y, z) - \beta \, [\log q(z | x) - a \log p(y) - b \log p(z | y)]

    In expectation a lower bound on log p(x, y) for beta, a, b >= 1 and discrete y, whatever q is;
    for beta < 1 if and only if (1 - beta) D <= KL(q(z|x) || p(z|x, y)), at a = b = 1.

    Args:
      parts: of `terms`, or means of them.
      beta: at least 0.
      text_weight: a.
      image_weight: b.

    Returns:
      nats, shaped as the parts.

    Raises:
      ValueError: a known beta or weight is below 0, or a part is not broadcastable to the
        reconstruction.

    Example:
      >>> import bounds
      >>> parts = bounds.joint.Terms(-10.0, log_q=-1.0, log_text=-2.0, log_image=-3.0)
      >>> float(bounds.joint.bound(parts)), float(bounds.joint.bound(parts, beta=2.0))
      (-14.0, -18.0)

    Source: Ramesh et al. 2021 (arXiv 2102.12092), eq. 1.
    """
    beta = check_at_least("beta", beta, 0.0)
    text_weight = check_at_least("text_weight", text_weight, 0.0)
    image_weight = check_at_least("image_weight", image_weight, 0.0)
    parts = Terms(*map(at_least_float32, parts))
    check_fits(
        "the reconstruction", parts.reconstruction.shape,
        log_q=parts.log_q, log_text=parts.log_text, log_image=parts.log_image,
    )  # fmt: skip
    weighted = _times(text_weight, parts.log_text) + _times(image_weight, parts.log_image)
    return parts.reconstruction - _times(beta, parts.log_q - weighted)


def relaxed(
    model: JointModel,
    *,
    temperature: ArrayLike,
    beta: ArrayLike = 1.0,
    text_weight: ArrayLike = 1.0,
    image_weight: ArrayLike = 1.0,
) -> Callable[[Params, Key, PyTree], Float[Array, ""]]:
    r"""Gumbel-softmax training objective of the first stage; NOT a bound at any temperature.

    .. math:: \log p(x | y, \mathrm{softmax}((\log q + g) / \tau)) - \beta \, [\log q - a \log p(y)
       - b \log p(z | y)]

    with g of Gumbel noise, the brackets' log q and log p(z | y) the closed-form means of
    `terms` for the unrelaxed q, and the hard z = argmax(log q + g) as the prefix of the
    prior. No gradient flows through that prefix; for a uniform prior there is none to flow. The
    softmax tells the decoder more than a token does, so the value may exceed log p(x, y).

    Args:
      model: the model; its `log_px` must accept codes between one-hot vectors.
      temperature: tau above 0, may be traced.
      beta: at least 0, may be traced.
      text_weight: a.
      image_weight: b.

    Returns:
      (params, key, (x, y)) -> [], to be maximised; differentiable in theta and phi.

    Raises:
      ValueError: a known temperature is not above 0, or a known beta or weight is below 0.

    Example:
      >>> import jax, jax.numpy as jnp, bounds
      >>> model = bounds.joint.JointModel(
      ...     encode=lambda phi, x: phi[x],
      ...     prior=lambda theta, y, z: (jnp.log(0.5), jnp.zeros((1, 3))),
      ...     log_px=lambda theta, x, y, codes: jnp.log(codes[0] @ theta[:, x]))
      >>> params = bounds.Params(jnp.full((3, 2), 0.5), jnp.zeros((2, 1, 3)))
      >>> objective = bounds.joint.relaxed(model, temperature=0.5)
      >>> jax.grad(objective)(params, jax.random.key(0), (1, 0)).phi.shape
      (2, 1, 3)

    Source: Jang et al. 2016 (arXiv 1611.01144); Ramesh et al. 2021 (arXiv 2102.12092), section 2.1.
    """
    temperature = check_at_least("temperature", temperature, 0.0, strictly=True)
    weights = {"beta": beta, "text_weight": text_weight, "image_weight": image_weight}
    weights = {name: check_at_least(name, value, 0.0) for name, value in weights.items()}

    def objective(params: Params, key: Key, datum: PyTree) -> Float[Array, ""]:
        log_probs = _log_probs(model.encode(params.phi, datum[0]))
        noisy = log_probs + jax.random.gumbel(key, log_probs.shape, log_probs.dtype)
        soft = jax.nn.softmax(noisy / temperature)
        z = jnp.argmax(noisy, axis=-1)
        shape = log_probs.shape
        found = generative(model, params.theta, datum, z, codes=soft, shape=shape)
        return bound(_analytic(found, log_probs), **weights)

    return objective


class _Generative(NamedTuple):
    """log p(x | y, z), log p(y), and log-probabilities [N, K] of each token after the others."""

    reconstruction: Array
    log_text: Array
    log_prior: Array


def generative(
    model: JointModel,
    theta: PyTree,
    datum: PyTree,
    z: Array,
    *,
    codes: Array | None = None,
    shape: tuple[int, ...] = (),
) -> _Generative:
    """What p says of tokens z; the decoder sees `codes`, by default their one-hot vectors.

    `shape` is that of q's logits, where it is known.
    """
    x, y = datum
    text, logits = model.prior(theta, y, z)
    log_prior = _log_probs(logits, "prior", shape or z.shape)
    if codes is None:
        codes = jax.nn.one_hot(z, log_prior.shape[-1], dtype=log_prior.dtype)
    reconstruction = check_scalar("log_px", model.log_px(theta, x, y, codes))
    return _Generative(reconstruction, check_scalar("prior's log p(y)", text), log_prior)


def _analytic(found: _Generative, log_probs: Array) -> Terms:
    """Terms with closed-form means over each token, given the tokens before it."""
    q = jnp.exp(log_probs)
    means = _mean(q, log_probs), found.log_text, _mean(q, found.log_prior)
    return Terms(found.reconstruction, *means)


def _log_probs(logits: Any, name: str = "encode", shape: tuple[int, ...] = ()) -> Array:
    logits = jnp.asarray(logits)
    if logits.ndim != 2 or (shape and logits.shape[: len(shape)] != shape):
        wanted = f"logits {shape}" if len(shape) == 2 else "logits [N, K], a row per token"
        raise ValueError(f"{name} must return {wanted}, got shape {logits.shape}.")
    return jax.nn.log_softmax(at_least_float32(logits))


def _log_prob(log_probs: Float[Array, "N K"], z: Array) -> Float[Array, ""]:
    if z.shape != log_probs.shape[:1]:
        raise ValueError(f"z must be {log_probs.shape[0]} tokens, got shape {z.shape}.")
    return jnp.sum(picked("z", log_probs, z))


def _times(weight: Array, value: ArrayLike) -> Array:
    """weight * value, where 0 times an infinity is 0."""
    return jnp.where(weight == 0, 0.0, weight * jnp.where(weight == 0, 0.0, value))


def _mean(q: Array, value: Array) -> Array:
    """sum q value, where 0 times -inf is 0."""
    return jnp.sum(jnp.where(q > 0, q * jnp.where(q > 0, value, 0.0), 0.0))
