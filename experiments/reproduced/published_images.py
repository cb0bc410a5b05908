"""Published numbers and orders of models of images: diffusion, flows and discrete VAEs.

Every number is from the paper that stands beside it.
"""

from experiments.reproduced.claims import Claim, Order, Place, Source


def _schedule(name: str, schedule: str) -> Place:
    return Place("vdm_schedules", name, {"schedule": schedule})


def _flow(model: str) -> Place:
    return Place("flowpp_mnist", "IW-8", {"model": model})


def _dvae(name: str, model: str) -> Place:
    return Place("dalle_beta", name, {"model": model})


def _of_family(family: str, bound: str, model: str) -> Place:
    return Place("compare_mnist", bound, {"family": family, "model": model})


_BETAS = {"low": "1/192", "paper": "6.6/192", "one": "1", "high": "6.6"}
_DIFFERENCE, _DEVIATION = "difference from the model's own schedule", "deviation by one time, "

IMAGES: tuple[Source, ...] = (
    Source(
        "Kingma et al. 2021 (arXiv 2107.00630), section 5.1, Figure 4b and appendix I.1, VDM in "
        "continuous time",
        "a perceptron on digits in place of CIFAR-10; a straight path in place of two schedules "
        "of DDPM; standard deviations of estimates by 64 images in place of variances, .53 "
        "(learned) and 6.35 (linear in log SNR) there",
        (
            Claim("bound under the linear schedule minus that under the learned one",
                  _schedule(_DIFFERENCE, "vdm_linear"), 0.0),
            Claim("bound under the straight path minus that under the learned one",
                  _schedule(_DIFFERENCE, "straight"), 0.0),
        ),
        (
            *(
                Order(f"deviation, {times} times: linear above learned",
                      _schedule(_DEVIATION + name, "vdm_linear"),
                      _schedule(_DEVIATION + name, "vdm_learned"))
                for name, times in (("uniform", "uniform"), ("low_discrepancy", "low-discrepancy"))
            ),
            *(
                Order(f"deviation, {title} schedule: uniform times above low-discrepancy ones",
                      _schedule(_DEVIATION + "uniform", schedule),
                      _schedule(_DEVIATION + "low_discrepancy", schedule))
                for schedule, title in (("vdm_linear", "linear"), ("vdm_learned", "learned"))
            ),
        ),
    ),
    Source(
        "Ho et al. 2019 (arXiv 1902.00275), the ablation of Flow++, bits/dim by importance samples",
        "MNIST of 8 bits in place of CIFAR-10, 24 filters and one block in place of 96 and 10, no "
        "attention, 3,000 steps of 32 images; widths are not matched; IW-8 of 1,000 test images",
        (
            *(
                Claim(f"bits/dim, {title}", _flow(model))
                for model, title in (("flowpp", "Flow++"), ("uniform", "uniform noise"),
                                     ("affine", "affine couplings"))
            ),
        ),
        (
            Order("uniform above learned noise", _flow("uniform"), _flow("flowpp")),
            Order("affine above mixture couplings", _flow("affine"), _flow("flowpp")),
        ),
    ),
    Source(
        "Ramesh et al. 2021 (arXiv 2102.12092), section 2.1, the weight of the KL in eq. 1",
        "Fashion-MNIST with the names of its classes, 7x7 tokens of 64 codes, 16 filters, 1,500 "
        "steps of 32 images; beta weighs the KL in nats an image, of which the paper's 6.6, with "
        "means over pixels and tokens, is 6.6/192",
        (
            *(
                Claim(f"{name} at beta = {title}", _dvae(name, model))
                for name in ("codes used", "perplexity", "squared error")
                for model, title in _BETAS.items()
            ),
        ),
        (
            Order("perplexity: beta = 6.6/192 above 1/192",
                  _dvae("perplexity", "paper"), _dvae("perplexity", "low")),
            Order("codes used: beta = 6.6/192 above 1/192",
                  _dvae("codes used", "paper"), _dvae("codes used", "low")),
            Order("squared error: beta = 1/192 above 6.6/192",
                  _dvae("squared error", "low"), _dvae("squared error", "paper")),
        ),
    ),
    Source(
        "UvA deep learning tutorial 11, flows on MNIST of 8 bits, IW-8, beside every family here",
        "budgets of minutes on two cores, the published flows trained for 200 epochs; the first "
        "test images, 50 to 300 of them",
        (
            Claim("Flow++, uniform noise", _of_family("Flow++", "IW-8", "uniform"), 1.078),
            Claim("Flow++, learned noise", _of_family("Flow++", "IW-8", "variational"), 1.041),
            Claim("Flow++, importance-weighted",
                  _of_family("Flow++", "IW-8", "importance-weighted")),
            Claim("autoregressive, exact", _of_family("Exact", "exact", "autoregressive")),
            Claim("VAE, IWAE-1000", _of_family("VAE", "IWAE-1000", "iwae-5")),
            Claim("diffusion, ELBO in continuous time",
                  _of_family("Diffusion", "ELBO, T = infinity", "vdm")),
            Claim("masked diffusion, ELBO", _of_family("Masked", "ELBO", "masked")),
            Claim("dVAE, bound on log p(x)", _of_family("dVAE", "bound on log p(x)", "dvae")),
        ),
    ),
)  # fmt: skip
