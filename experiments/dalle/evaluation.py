"""What is measured of a trained model: the joint bound and its gaps, the codebook, captions."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import bounds
from experiments.dalle import enumeration, marginal
from experiments.dalle.build import Data, Model
from experiments.dalle.settings import Dalle, Evaluation
from experiments.runtime import keys
from experiments.runtime.compiling import precise
from experiments.runtime.keys import Purpose
from experiments.runtime.results import Row, row
from experiments.studies import held_out
from experiments.studies.held_out import mean_row
from experiments.studies.images import as_images
from experiments.studies.settings import Memory
from experiments.studies.study import UNIT
from models.token_prior import picked

PLACES = 16  # of the grid: the most that get a row of information each
CLASSES = 100  # the most captions among which the right one is looked for


def rows(
    data: Data, model: Model, params: bounds.Params, at: dict[str, Any], settings: Dalle
) -> list[Row]:
    """All rows of one model."""
    wanted, memory = settings.evaluation, settings.memory
    images, captions = _test(data, wanted)
    parts = _terms_of(data, model, params, wanted, memory)
    out: list[Row] = codebook(parts, at, model) + relaxations(parts, at, wanted.temperatures)
    density = model.dvae.likelihood.density
    out.append(mean_row("squared error", at, parts["squared_error"], "estimate", unit="levels^2"))
    if enumeration.possible(model):
        out += exact_rows(data, model, params, images, captions, at)
    else:
        out += sampled_rows(data, model, params, images, captions, at, wanted, memory)
        out += [mean_row(name, at, values, "estimate") for name, values in _parts(parts["terms"])]
    out += marginal.rows(data, model, params, images, at, wanted, memory)
    if density:  # a decoder over real numbers: densities are no probabilities, and give no bits
        out = [r for r in out if r["unit"] != UNIT]
        names = {"log p(x, y)": "log density of x, y", "log p(x)": "log density of x"}
        for old, new in names.items():
            out = [{**r, "name": r["name"].replace(old, new)} for r in out]
    if len(data.classes) <= CLASSES:
        right = caption_is_right(data, model, params, parts["tokens"], captions)
        out.append(mean_row("caption accuracy", at, right, "estimate", unit="share"))
    return out


def exact_rows(
    data: Data,
    model: Model,
    params: bounds.Params,
    images: np.ndarray,
    captions: np.ndarray,
    at: dict[str, Any],
) -> list[Row]:
    """log p(x, y), the joint bound and what lies between, by sums over all codes."""
    found = enumeration.enumerated(model, params, images, captions)
    values = found.values
    rest = np.abs(values.log_p.astype(np.float64) - values.bound - found.gap)
    rate = values.divergence + found.log_text
    bits = functools.partial(mean_row, at=at, unit=UNIT)
    out = [
        mean_row("log p(x, y)", at, values.log_p, "exact"),
        mean_row("joint bound", at, values.bound, "lower_bound"),
        mean_row("variational gap", at, found.gap, "exact"),
        mean_row("reconstruction", at, values.reconstruction, "exact"),
        mean_row("D", at, values.divergence, "exact"),
        mean_row("KL(q || p(z | y))", at, rate, "exact"),
        mean_row("-log p(y)", at, -found.log_text, "exact"),
        row(
            "prior gap, training images",
            at,
            kind="exact",
            unit="nats",
            value=enumeration.prior_gap(model, params, *_train(data)),
        ),
        bits("log p(x, y)", values=data.problem.bits(values.log_p), kind="exact"),
        bits("joint bound", values=data.problem.bits(values.bound), kind="upper_bound"),
        row(
            "|log p - bound - gap|, largest",
            at,
            kind="exact",
            unit="nats",
            value=float(rest.max()),
            n=len(rest),
        ),
    ]
    if model.prior.masked is not None:
        mixed = enumeration.enumerated(model, params, images, captions, all_orders=True).values
        out += [
            mean_row("log p(x, y), all orders", at, mixed.log_p, "exact"),
            mean_row("joint bound, all orders", at, mixed.bound, "lower_bound"),
        ]
    total = prior_total(data, model, params)
    if total is not None:
        out.append(
            row("|sum of p(y, z) - 1|", at, kind="exact", unit="probability", value=abs(total - 1))
        )
    return out


def prior_total(data: Data, model: Model, params: bounds.Params) -> float | None:
    """p(y, z) summed over all sequences of text and image tokens; None where they are too many."""
    sequences = marginal.all_sequences(data)
    if sequences is None:
        return None
    text, image = enumeration.log_priors(model, params, sequences)
    return float(np.exp(np.asarray(text[:, None] + image, np.float64)).sum())


def sampled_rows(
    data: Data,
    model: Model,
    params: bounds.Params,
    images: np.ndarray,
    captions: np.ndarray,
    at: dict[str, Any],
    wanted: Evaluation,
    memory: Memory,
) -> list[Row]:
    """The joint bound and IWAE of it, where codes are too many to be summed over."""
    found = held_out.per_image(
        _latent_of(model),
        params,
        (images, captions),
        keys.key_for(wanted.seed, Purpose.TEST_IMAGES),
        few=wanted.num_draws,
        many=wanted.num_samples,
        images_per_pass=memory.images_per_pass,
        samples_per_pass=memory.samples_per_pass,
    )
    rows = held_out.rows(found, few=wanted.num_draws, many=wanted.num_samples)
    names = {"ELBO": "joint bound"}
    out: list[Row] = [
        {**r, "name": names.get(r["name"], r["name"]), "at": {**at, **r["at"]}} for r in rows
    ]
    out.append(mean_row("joint bound", at, data.problem.bits(found.elbo), "upper_bound", unit=UNIT))
    return out


@functools.cache
def _latent_of(model: Model) -> bounds.LatentModel:
    return bounds.joint.latent(model.joint)


def _terms_of(
    data: Data, model: Model, params: bounds.Params, wanted: Evaluation, memory: Memory
) -> dict[str, Any]:
    """Per image: logits and argmax tokens, hard and relaxed values, squared error."""
    evaluate = _terms(model, wanted.num_draws, wanted.temperatures)
    key = keys.key_for(wanted.seed, Purpose.RELAXATIONS)
    log_probs, tokens, terms, hard, relaxed, squared_error = held_out.over_images(
        evaluate, params, _test(data, wanted), key, images_per_pass=memory.images_per_pass
    )
    return {
        "log_probs": log_probs,
        "tokens": tokens,
        "terms": bounds.joint.Terms(*terms),
        "hard": hard,
        "relaxed": relaxed,
        "squared_error": squared_error,
    }


@functools.cache
def _terms(model: Model, draws: int, temperatures: tuple[float, ...]):
    def one(params, key, datum, index):
        x, _ = datum
        log_probs = jax.nn.log_softmax(model.dvae.encode(params.phi, x))
        tokens = jnp.argmax(log_probs, axis=-1)
        key = jax.random.fold_in(key, index)

        def values(number):
            own = jax.random.fold_in(key, number)
            # Hard and relaxed by the same Gumbel noise: `joint.terms` and `joint.relaxed` draw it
            # alike, so that their difference varies less than either.
            terms = bounds.joint.terms(model.joint, params, own, datum)
            relaxed = [
                bounds.joint.relaxed(model.joint, temperature=t)(
                    params, jax.random.clone(own), datum
                )
                for t in temperatures
            ]
            return tuple(terms), bounds.joint.bound(terms), jnp.stack(relaxed)

        terms, hard, relaxed = jax.tree.map(
            lambda v: jnp.mean(v, axis=0), jax.lax.map(values, jnp.arange(draws))
        )
        codes = jax.nn.one_hot(tokens, model.num_codes)
        mean = model.dvae.likelihood.mean(model.dvae.decode(params.theta["decoder"], codes))
        squared_error = jnp.mean(jnp.square(mean - x.reshape(-1)))
        return log_probs, tokens, terms, hard, relaxed, squared_error

    return held_out.compiled(one)


def relaxations(
    parts: dict[str, Any], at: dict[str, Any], temperatures: tuple[float, ...]
) -> list[Row]:
    """What the relaxed objective has over the bound, at each temperature; no bound itself."""
    out = []
    for place, temperature in enumerate(temperatures):
        gap = parts["relaxed"][:, place].astype(np.float64) - parts["hard"]
        where = {**at, "temperature": temperature}
        out.append(mean_row("relaxation gap", where, gap, "estimate"))
    return out


def codebook(parts: dict[str, Any], at: dict[str, Any], model: Model) -> list[Row]:
    """How much of the codebook is used, over the test images.

    Codes used are argmax tokens of any place; the perplexity is exp H of the mean q over images and
    places; I = H(mean q) - mean H(q), of each place and then summed over them.
    """
    log_probs = parts["log_probs"].astype(np.float64)
    q = np.exp(log_probs)
    used = len(np.unique(parts["tokens"]))
    of_places = q.mean(axis=0)
    # Per image, so that the mean has a standard error: E_q log q(z | x) / qbar(z).
    information = np.sum(q * (log_probs - np.log(np.maximum(of_places, 1e-300))), axis=2)
    overall = of_places.mean(axis=0)
    perplexity = math.exp(-np.sum(overall * np.log(np.maximum(overall, 1e-300))))
    places = -np.sum(of_places * np.log(np.maximum(of_places, 1e-300)), axis=-1)
    each = enumerate(information.T) if information.shape[1] <= PLACES else ()
    return [
        row("codes used", at, kind="exact", unit=f"of {model.num_codes}", value=used),
        row("perplexity", at, kind="exact", unit="codes", value=perplexity),
        row(
            "perplexity of a place",
            at,
            kind="exact",
            unit="codes",
            value=float(np.exp(places).mean()),
        ),
        mean_row("information, all places", at, information.sum(axis=1), "estimate"),
        *(mean_row("information", {**at, "place": n}, v, "estimate") for n, v in each),
    ]


def caption_is_right(
    data: Data, model: Model, params: bounds.Params, tokens: np.ndarray, captions: np.ndarray
) -> np.ndarray:
    """Whether argmax_y p(y | z), of the tokens of each image, is its caption."""
    candidates = data.vocabulary.all_tokens(data.classes)
    scores: Any = held_out.over_images(
        _scores_of(model), (params, candidates), tokens, None, images_per_pass=64
    )
    return np.all(candidates[scores.argmax(axis=1)] == captions, axis=-1).astype(float)


@functools.cache
def _scores_of(model: Model):
    def one(given, key, z, index):
        del key, index
        params, candidates = given

        def of_caption(y):
            text, logits = model.joint.prior(params.theta, y, z)
            return text + picked(logits, z)

        return jax.vmap(of_caption)(candidates)

    return held_out.spread(jax.vmap(one, (None, None, 0, 0)))


def sampled(
    data: Data, model: Model, params: bounds.Params, key: Array, captions: list[str], count: int
) -> np.ndarray:
    """Mean images of tokens drawn from p(z | y), [captions, count, h, w, c], in levels."""
    tokens = jnp.asarray(data.vocabulary.all_tokens(captions))
    means = _sampler_of(model)(params, jax.random.split(key, (len(captions), count)), tokens)
    return np.asarray(means).reshape(len(captions), count, *data.problem.shape)


@functools.cache
def _sampler_of(model: Model):
    @jax.jit
    @precise
    def sample(params, keys, tokens):
        def one(key, y):
            z = model.prior.sample(params.theta["prior"], key, y)
            codes = jax.nn.one_hot(z, model.num_codes)
            return model.dvae.likelihood.mean(model.dvae.decode(params.theta["decoder"], codes))

        return jax.vmap(jax.vmap(one, (0, None)))(keys, tokens)

    return sample


def _parts(terms: bounds.joint.Terms) -> list[tuple[str, Any]]:
    """The parts of the bound by draws of z, under the names of `exact_rows`."""
    rate = terms.log_q - terms.log_image
    return [
        ("reconstruction", terms.reconstruction), ("D", rate - terms.log_text),
        ("KL(q || p(z | y))", rate), ("-log p(y)", -terms.log_text),
    ]  # fmt: skip


def _train(data: Data) -> tuple[np.ndarray, np.ndarray]:
    return as_images(data.problem.dataset.train), data.tokens["train"]


def _test(data: Data, wanted: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """(images as float32, tokens of their captions)."""
    count = wanted.num_images or None
    return as_images(data.problem.dataset.test[:count]), data.tokens["test"][:count]
