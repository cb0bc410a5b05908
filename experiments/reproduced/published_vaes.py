"""Published numbers and orders of VAEs, IWAE and its gradients.

Every number is from the paper that stands beside it.
"""

import itertools
import math

from experiments.reproduced.claims import Claim, Order, Place, Source

SCORE = "IWAE-5000"


def _vae(part: str, objective: str, k: int, name: str = SCORE, m: int = 1) -> Place:
    return Place(part, name, {"objective": objective, "M": m, "K": k})


_SHORTER = (
    "100 epochs in place of 3,280, all eight stages shortened in proportion; images reshuffled "
    "each epoch, as they are not there; test images binarised once"
)
_BURDA = {
    ("elbo", 1): -86.76, ("elbo", 5): -86.47, ("elbo", 50): -86.35,
    ("iwae", 5): -85.54, ("iwae", 50): -84.78,
}  # fmt: skip
# Of 50, likewise.
_ACTIVE = {
    ("elbo", 1): 19, ("elbo", 5): 20, ("elbo", 50): 20, ("iwae", 5): 22, ("iwae", 50): 25,
}  # fmt: skip
UNITS = "active units, layer 1"
_TITLES = {"elbo": "VAE", "iwae": "IWAE", "dreg": "DReG"}


def _part(k: int) -> str:
    return f"burda_k{k}"


def _above(*models: tuple[str, int], part: str = "", name: str = SCORE) -> tuple[Order, ...]:
    """Each model above the next."""
    return tuple(
        Order(
            f"{_TITLES[a]}, K = {i}, above {_TITLES[b]}, K = {j}",
            _vae(part or _part(i), a, i, name), _vae(part or _part(j), b, j, name),
        )
        for (a, i), (b, j) in itertools.pairwise(models)
    )  # fmt: skip


_RUNS = 4  # whose mean stands there; what is behind ± is read as their standard deviation
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
            _vae("rainforth_table", objective, k, name, m),
            numbers[2 * i], numbers[2 * i + 1] / math.sqrt(_RUNS),
        )
        for (objective, m, k), numbers in _RAINFORTH.items()
        for i, name in enumerate(("IWAE-64", SCORE, "-KL"))
    )  # fmt: skip


def _gap(objective: str, k: int, m: int = 1) -> Place:
    return _vae("rainforth_table", objective, k, "-KL", m)


def _snr(name: str, k: int) -> Place:
    return Place("rainforth_mnist", name, {"K": k})


_WU = "AIS above IWAE"


def _wu(start: str, temperatures: int, name: str = _WU, **at: str) -> Place:
    return Place(f"wu_{start}_{temperatures}", name, {"T": temperatures, **at})


_ENCODERS = {"small": "50 units", "paper": "200, 200", "large": "500, 500"}


def _cremer(model: str, gap: str, data: str = "train") -> Place:
    return Place("cremer", f"{gap} gap", {"model": model, "data": data})


def _daudel(part: str, name: str, d: int, alpha: float, **at: int) -> Place:
    return Place(part, name, {"D": d, "alpha": alpha, **at})


def _of_daudel(part: str, differs: str) -> Source:
    """Both limits of the gap, and the SNR of phi, of Gaussians with a variance of q."""
    of, near, far = "gap minus that of ", {"K": 64}, {"K": 1024}
    return Source(
        "Daudel et al. 2023 (arXiv 2210.06226), VR-IWAE as K grows at a fixed dimension (theorem "
        f"3) and under weight collapse (theorem 6), {differs}",
        "the linear-Gaussian toy of Rainforth et al. with parameters .02 from the optimum; limits, "
        "ours at K = 64 (nearest to 0 what the form leaves out) and 1,024; exponents fitted to "
        "K = 64 .. 1,024",
        tuple(
            Claim(f"D = 20, K = 64, alpha = {a:g}: gap minus its 1/K form",
                  _daudel(part, of + "1/K", 20, a, **near), 0.0)
            for a in (0.0, 0.5)
        ) + tuple(
            Claim(f"D = 200, K = 1,024, alpha = {a:g}: gap minus that of weight collapse",
                  _daudel(part, of + "weight collapse", 200, a, **far))
            for a in (0.0, 0.5)
        ) + (
            Claim("D = 5: exponent of the SNR of phi in K, alpha = 0",
                  _daudel(part, "slope of phi pathwise", 5, 0.0), -0.5),
            Claim("D = 5: exponent of the SNR of phi in K, alpha = 0.5",
                  _daudel(part, "slope of phi pathwise", 5, 0.5), 0.5),
        ),
        tuple(
            Order(f"K = 1,024, alpha = {a:g}: the gap is nearer to weight collapse at D = 200",
                  _daudel(part, of + "1/K", 200, a, **far),
                  _daudel(part, of + "weight collapse", 200, a, **far), size=True)
            for a in (0.0, 0.5)
        ) + tuple(
            Order(f"K = 1,024, alpha = {a:g}: the gap is nearer to 1/K at D = 20",
                  _daudel(part, of + "weight collapse", 20, a, **far),
                  _daudel(part, of + "1/K", 20, a, **far), size=True)
            for a in (0.0, 0.5)
        ),
        trained=False,
    )  # fmt: skip


VAES: tuple[Source, ...] = (
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
        "Burda et al. 2015 (arXiv 1509.00519), Table 1, MNIST, one layer, active units of 50",
        _SHORTER + "; a count of one seed has no error",
        tuple(
            Claim(f"{_TITLES[name]}, K = {k}", _vae(_part(k), name, k, UNITS), value)
            for (name, k), value in _ACTIVE.items()
        ),
        _above(("iwae", 50), ("iwae", 5), ("elbo", 1), name=UNITS),
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
        "10 epochs in place of 3,280, all eight stages shortened in proportion; one seed for four",
        _table_of_rainforth(),
        (
            Order("-KL: MIWAE above PIWAE", _gap("miwae", 8, 8), _gap("piwae", 8, 8)),
            Order("-KL: PIWAE above IWAE", _gap("piwae", 8, 8), _gap("iwae", 64)),
            Order("-KL: CIWAE above IWAE", _gap("ciwae", 64), _gap("iwae", 64)),
            Order("-KL: MIWAE above CIWAE", _gap("miwae", 8, 8), _gap("ciwae", 64)),
            Order("-KL: VAE above MIWAE", _gap("elbo", 64), _gap("miwae", 8, 8)),
            Order("IWAE-64: MIWAE above IWAE", _vae("rainforth_table", "miwae", 8, "IWAE-64", 8),
                  _vae("rainforth_table", "iwae", 64, "IWAE-64")),
            Order("log p: IWAE above MIWAE", _vae("rainforth_table", "iwae", 64, SCORE),
                  _vae("rainforth_table", "miwae", 8, SCORE, 8)),
            Order("log p: PIWAE above MIWAE", _vae("rainforth_table", "piwae", 8, SCORE, 8),
                  _vae("rainforth_table", "miwae", 8, SCORE, 8)),
        ),
    ),
    Source(
        "Rainforth et al. 2018 (arXiv 1802.04537), theorem 1 and the SNR of a VAE on MNIST",
        "Burda's VAE after 2,000 steps of the ELBO, one minibatch of 16 images; limits of large K, "
        "ours are fitted to K = 1 .. 64",
        (
            Claim("exponent of the SNR of theta in K, IWAE",
                  Place("rainforth_mnist", "slope of theta pathwise"), 0.5),
            Claim("exponent of the SNR of phi in K, IWAE",
                  Place("rainforth_mnist", "slope of phi pathwise"), -0.5),
            Claim("exponent of the SNR of theta over that of phi in K, IWAE",
                  Place("rainforth_mnist", "slope of theta / phi pathwise"), 1.0),
        ),
        (
            Order("SNR of theta, IWAE: K = 64 above K = 1",
                  _snr("theta pathwise", 64), _snr("theta pathwise", 1)),
            Order("SNR of phi, IWAE: K = 1 above K = 64",
                  _snr("phi pathwise", 1), _snr("phi pathwise", 64)),
        ),
    ),
    Source(
        "Tucker et al. 2018 (arXiv 1810.04152), the SNR of phi of a VAE on MNIST",
        "as in the table before",
        (Claim("exponent of the SNR of phi in K, DReG",
               Place("rainforth_mnist", "slope of phi dreg"), 0.5),),
        (
            Order("SNR of phi, K = 64: DReG above IWAE",
                  _snr("phi dreg", 64), _snr("phi pathwise", 64)),
        ),
    ),
    Source(
        "Wu et al. 2017 (arXiv 1611.04273), Table 1, an IWAE on binarised MNIST",
        "IWAE with K = 50 of part burda_k50 in place of theirs; the first 100 test images in place "
        "of 10,000; published are differences of the means there; BDMC there, below 1 nat for "
        "most models, is of continuous images and 10,000 temperatures",
        (
            Claim("AIS from the prior, 1,000 temperatures, above IWAE-10,000",
                  _wu("prior", 1000), 1.223),
            Claim("AIS from the encoder, 100 temperatures, above IWAE-10,000",
                  _wu("encoder", 100), 1.148),
            Claim("AIS from the encoder, 1,000 temperatures, above IWAE-10,000",
                  _wu("encoder", 1000), 1.281),
            Claim("AIS from the prior, 100 temperatures, above IWAE-10,000", _wu("prior", 100)),
            *(
                Claim(f"BDMC gap of simulated data, AIS from the {start}, {t:,} temperatures",
                      _wu(start, t, "AIS gap"))
                for start in ("prior", "encoder") for t in (100, 1000)
            ),
        ),
        (
            Order("AIS from the prior, 1,000, above that from the encoder, 100",
                  _wu("prior", 1000), _wu("encoder", 100)),
            Order("AIS from the encoder: 1,000 above 100", _wu("encoder", 1000),
                  _wu("encoder", 100)),
        ),
    ),
    Source(
        "Cremer et al. 2018 (arXiv 1801.03558), the gap of VAEs on MNIST by size of the encoder",
        "100 epochs, all eight stages shortened in proportion, batches of 20 images, tanh, images "
        "binarised anew each epoch, one seed, the best of validation; encoders of two layers of "
        "200 and of 500 units as there, and of one of 50; the first 1,000 training images as "
        "there, and test images, with IWAE-5000 under the q of each image for log p(x)",
        tuple(
            Claim(f"{gap} gap, {title}, {data} images", _cremer(model, gap, data))
            for data in ("train", "test") for model, title in _ENCODERS.items()
            for gap in ("approximation", "amortisation")
        ),
        (
            *(
                Order(f"train images, {_ENCODERS[model]}: amortisation above approximation gap",
                      _cremer(model, "amortisation"), _cremer(model, "approximation"))
                for model in ("paper", "large")
            ),
            Order("train images, amortisation gap: 200, 200 above 500, 500",
                  _cremer("paper", "amortisation"), _cremer("large", "amortisation")),
        ),
    ),
    _of_daudel("daudel_gaussian", "log-weights that are normal"),
    _of_daudel("daudel_linear", "log-weights that are normal in the limit"),
)  # fmt: skip
