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


_BETAS = {"tenth": ".1", "one": "1", "paper": "6.6"}
_DIFFERENCE, _DEVIATION = "difference from the model's own schedule", "deviation by one time, "

IMAGES: tuple[Source, ...] = (
    Source(
        "Kingma et al. 2021 (arXiv 2107.00630), section 5.1, Figure 4b and appendix I.1, VDM in "
        "continuous time",
        "a perceptron on digits in place of CIFAR-10, one seed; a straight path in place of two "
        "schedules of DDPM; standard deviations of estimates by 64 images in place of variances, "
        ".53 (learned) and 6.35 (linear in log SNR) there",
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
        "MNIST of 8 bits in place of CIFAR-10, 24 filters, one block and 4 components in place of "
        "96, 10 and 32, no attention and no dropout, 2 couplings of 16 filters for the noise; "
        "2,000 steps of 32 images, the best of validation, one seed; widths are not matched; IW-8 "
        "of 1,000 test images",
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
            Order("uniform noise above affine couplings", _flow("uniform"), _flow("affine")),
        ),
    ),
    Source(
        "Ramesh et al. 2021 (arXiv 2102.12092), section 2.1, the weight of the KL in eq. 1",
        "Fashion-MNIST with the names of its classes, 7x7 tokens of 64 codes, 16 filters, 1,500 "
        "steps of 32 images, three seeds, the first 200 test images; beta weighs nats of KL "
        "against nats of reconstruction, as there, where an image has 192 dimensions a token and "
        "here 16",
        (
            *(
                Claim(f"{name} at beta = {title}", _dvae(name, model))
                for name in ("codes used", "perplexity", "squared error")
                for model, title in _BETAS.items()
            ),
        ),
        (
            *(
                Order(f"{name}: beta = 6.6 above 1", _dvae(name, "paper"), _dvae(name, "one"))
                for name in ("codes used", "perplexity")
            ),
            Order("squared error: beta = 1 above 6.6",
                  _dvae("squared error", "one"), _dvae("squared error", "paper")),
        ),
    ),
    Source(
        "UvA deep learning tutorial 11, flows on MNIST of 8 bits, IW-8, beside every family here",
        "published are other flows, of 556,000 and 628,000 parameters after 200 epochs, of all "
        "10,000 images; ours have 3,000 steps of 32 images (2,000 for the flows, those of "
        "part flowpp_mnist, 20,000 of 50 for the VAE, 2,000 of 16 for masked diffusion, 1,500 and "
        "300 of 32 for the dVAE) and the first 1,000 test images (50 for masked diffusion, 200 for "
        "the dVAE, 300 for diffusion), one seed",
        (
            Claim("Flow++, uniform noise", _of_family("Flow++", "IW-8", "uniform"), 1.078),
            Claim("Flow++, learned noise", _of_family("Flow++", "IW-8", "flowpp"), 1.041),
            Claim("autoregressive, exact", _of_family("Exact", "exact", "autoregressive")),
            Claim("VAE, IWAE-1000", _of_family("VAE", "IWAE-1000", "iwae-5")),
            Claim("diffusion, ELBO in continuous time",
                  _of_family("Diffusion", "ELBO, T = infinity", "vdm")),
            Claim("masked diffusion, ELBO", _of_family("Masked", "ELBO", "masked")),
            Claim("dVAE, bound on log p(x)", _of_family("dVAE", "bound on log p(x)", "dvae")),
        ),
    ),
)  # fmt: skip
