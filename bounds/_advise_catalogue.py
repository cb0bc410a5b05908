"""The estimators that `advise` tries, for each bound, and which of them are known to be biased."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import PyTree

from bounds._disarm import disarm
from bounds._estimators import dreg, pathwise, stl
from bounds._leave_one_out import ovis, rloo
from bounds._multi_sample import piwae
from bounds._score_function import reinforce, rws, vimco
from bounds._thermodynamic import Betas, thermodynamic, tvo
from bounds._types import LatentModel, Objective
from bounds._values import elbo, iwae

BOUNDS = ("elbo", "iwae", "thermodynamic")


class Candidate(NamedTuple):
    """An estimator of the gradient of a bound.

    Attributes:
      name: what it is called, the same under every bound.
      make: (model, K) -> its objective.
      takes: whether it takes K samples.
      biased: whether its gradient in phi is not that of the bound.
    """

    name: str
    make: Callable[[LatentModel, int], Objective]
    takes: Callable[[int], bool]
    biased: bool = False


def candidates(
    bound: str, betas: Betas, logits: Callable[[PyTree, PyTree], PyTree] | None
) -> list[Candidate]:
    """Those of a bound; the first legal one measures its gradient, so those of least noise lead.

    With one sample all bounds are the ELBO, so that is where K = 1 belongs. `miwae` is left out:
    M groups are M draws of `pathwise` at K, at M times the cost.
    """

    def of(name: str, make: Callable[..., Objective], least: int = 2, **options: Any) -> Candidate:
        biased = options.pop("biased", False)
        return Candidate(
            name, lambda m, k: make(m, num_samples=k, **options), lambda k: k >= least, biased
        )

    if bound == "elbo":
        pairs = Candidate("disarm", functools.partial(_pairs, logits), lambda k: k % 2 == 0)
        return [
            of("stl", stl, 1, bound=elbo), pairs, of("rloo", rloo),
            of("pathwise", pathwise, 1, bound=elbo), of("reinforce", reinforce, 1, bound=elbo),
        ]  # fmt: skip
    if bound == "iwae":
        return [
            of("dreg", dreg), of("rloo", rloo, bound=iwae), of("ovis", ovis), of("vimco", vimco),
            of("pathwise", pathwise), of("reinforce", reinforce), of("stl", stl, biased=True),
            Candidate("piwae", _groups, lambda k: _num_groups(k) > 1, biased=True),
            of("ovis, gamma 1", ovis, gamma=1.0, biased=True), of("rws", rws, biased=True),
        ]  # fmt: skip
    left = functools.partial(thermodynamic, betas=betas)
    return [
        of("rloo", rloo, bound=left), of("pathwise", pathwise, bound=left),
        of("reinforce", reinforce, bound=left), of("tvo", tvo, betas=betas, biased=True),
    ]  # fmt: skip


def _pairs(logits: Any, model: LatentModel, num_samples: int) -> Objective:
    if logits is None:
        raise ValueError("disarm is for independent Bernoulli z: give advise their logits=.")
    return disarm(model, num_samples=num_samples, logits=logits)


def _num_groups(num_samples: int) -> int:
    """The largest divisor up to the root: 8 groups of 8 for K = 64."""
    return max(m for m in range(1, math.isqrt(num_samples) + 1) if num_samples % m == 0)


def _groups(model: LatentModel, num_samples: int) -> Objective:
    groups = _num_groups(num_samples)
    return piwae(model, num_groups=groups, num_samples=num_samples // groups)
