"""What others published, and where a part of ours has the same: numbers, and orders of numbers.

Every number is from the paper that stands beside it.
"""

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A row of a part: its name and what of its `at` tells it from others of that name."""

    part: str
    name: str
    at: Mapping[str, Any] = MappingProxyType({})


class Claim(NamedTuple):
    """A published number, with its standard error where there is one."""

    of: str
    ours: Place
    value: float
    error: float | None = None


class Order(NamedTuple):
    """A published order: the one is above the other."""

    of: str
    above: Place
    below: Place


class Source(NamedTuple):
    """A table or figure of a paper.

    Attributes:
      paper: with the place in it.
      differs: what is not as it was there.
      claims: numbers.
      orders: of numbers; they can agree where a shorter training leaves the numbers apart.
    """

    paper: str
    differs: str
    claims: tuple[Claim, ...] = ()
    orders: tuple[Order, ...] = ()


SCORE = "IWAE-5000"


def _vae(part: str, objective: str, k: int, name: str = SCORE, m: int = 1) -> Place:
    return Place(part, name, {"objective": objective, "M": m, "K": k})


_SHORTER = "100 epochs in place of 3,280, all eight stages shortened in proportion"
_BURDA = {
    ("elbo", 1): -86.76, ("elbo", 5): -86.47, ("elbo", 50): -86.35,
    ("iwae", 5): -85.54, ("iwae", 50): -84.78,
}  # fmt: skip
_TITLES = {"elbo": "VAE", "iwae": "IWAE", "dreg": "DReG"}


def _part(k: int) -> str:
    return f"burda_k{k}"


def _above(*models: tuple[str, int], part: str = "") -> tuple[Order, ...]:
    """Each model above the next."""
    return tuple(
        Order(
            f"{_TITLES[a]}, K = {i}, above {_TITLES[b]}, K = {j}",
            _vae(part or _part(i), a, i), _vae(part or _part(j), b, j),
        )
        for (a, i), (b, j) in itertools.pairwise(models)
    )  # fmt: skip


_RAINFORTH = {
    ("iwae", 1, 64): (-86.11, 0.10, -84.52, 0.02, -1.59, 0.10),
    ("piwae", 8, 8): (-85.74, 0.07, -84.46, 0.06, -1.28, 0.09),
    ("miwae", 8, 8): (-85.69, 0.04, -84.97, 0.10, -0.72, 0.11),
    ("ciwae", 1, 64): (-86.08, 0.08, -85.24, 0.08, -0.84, 0.11),
    ("elbo", 1, 64): (-86.69, 0.08, -86.21, 0.19, -0.47, 0.20),
}


def _table_of_rainforth() -> tuple[Claim, ...]:
    return tuple(
        Claim(
            f"{objective.upper()}, M = {m}, K = {k}: {name}",
            _vae("rainforth_table", objective, k, name, m), numbers[2 * i], numbers[2 * i + 1],
        )
        for (objective, m, k), numbers in _RAINFORTH.items()
        for i, name in enumerate(("IWAE-64", SCORE, "-KL"))
    )  # fmt: skip


def _gap(objective: str, k: int, m: int = 1) -> Place:
    return _vae("rainforth_table", objective, k, "-KL", m)


SOURCES: tuple[Source, ...] = (
    Source(
        "Rainforth et al. 2018 (arXiv 1802.04537), Gaussian toy, theorem 1",
        "gradients of one datum in place of all 1,024; limits of large K, ours are "
        "fitted to K = 16 .. 1,000",
        (
            Claim("exponent of the SNR of theta in K, IWAE",
                  Place("toy", "slope of theta pathwise"), 0.5),
            Claim("exponent of the SNR of phi in K, IWAE",
                  Place("toy", "slope of phi dreg mean / pathwise sd"), -0.5),
            Claim("exponent of the SNR of phi in M, ELBO", Place("toy", "slope of phi elbo"), 0.5),
        ),
    ),
    Source(
        "Tucker et al. 2018 (arXiv 1810.04152), the variance of DReG over K",
        "the toy of Rainforth et al.; a limit of large K, ours is fitted to K = 128 .. 1,000",
        (Claim("exponent of the SNR of phi in K, DReG", Place("toy", "slope of phi dreg"), 0.5),),
    ),
    Source(
        "Burda et al. 2015 (arXiv 1509.00519), Table 1, MNIST, one layer, log p(x) by IWAE-5000",
        _SHORTER,
        tuple(
            Claim(f"{_TITLES[name]}, K = {k}", _vae(_part(k), name, k), value)
            for (name, k), value in _BURDA.items()
        ),
        _above(("iwae", 50), ("iwae", 5), ("elbo", 1))
        + _above(("elbo", 50), ("elbo", 5), ("elbo", 1))
        + _above(("iwae", 5), ("elbo", 5))
        + _above(("iwae", 50), ("elbo", 50)),
    ),
    Source(
        "Tucker et al. 2018 (arXiv 1810.04152), MNIST, log p(x) by IWAE-5000",
        _SHORTER + "; K = 5 and 50 in place of 64, Burda's network",
        (),
        _above(("dreg", 5), ("iwae", 5)) + _above(("dreg", 50), ("iwae", 50)),
    ),
    Source(
        "Burda et al. 2015 (arXiv 1509.00519), MNIST as binarised by Larochelle, one layer",
        _SHORTER,
        (
            Claim("IWAE, K = 1", _vae("larochelle", "elbo", 1), -88.71),
            Claim("IWAE, K = 50", _vae("larochelle", "iwae", 50), -87.10),
        ),
        _above(("iwae", 50), ("elbo", 1), part="larochelle"),
    ),
    Source(
        "Rainforth et al. 2018 (arXiv 1802.04537), Table 1, MNIST, 64 samples in all",
        "30 epochs in place of 3,280, all eight stages shortened in proportion; one seed for four",
        _table_of_rainforth(),
        (
            Order("-KL: MIWAE above PIWAE", _gap("miwae", 8, 8), _gap("piwae", 8, 8)),
            Order("-KL: PIWAE above IWAE", _gap("piwae", 8, 8), _gap("iwae", 64)),
            Order("-KL: CIWAE above IWAE", _gap("ciwae", 64), _gap("iwae", 64)),
            Order("-KL: VAE above MIWAE", _gap("elbo", 64), _gap("miwae", 8, 8)),
            Order("IWAE-64: MIWAE above IWAE", _vae("rainforth_table", "miwae", 8, "IWAE-64", 8),
                  _vae("rainforth_table", "iwae", 64, "IWAE-64")),
            Order("log p: PIWAE above MIWAE", _vae("rainforth_table", "piwae", 8, SCORE, 8),
                  _vae("rainforth_table", "miwae", 8, SCORE, 8)),
        ),
    ),
)  # fmt: skip
