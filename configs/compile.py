"""What each program runs on its devices, at the sizes that were published.

Command: python -m experiments.compile --config=configs/compile.py --workdir=runs/compile \
    --topology=v5e:2x4
Machine and time: 2 cores of a Xeon; minutes each, Flow++ and the U-Net tens of minutes.
Expected: the table in docs/cloud-tpu.md. Published: none.
A part of it: '--config.order=("train","evaluate")'.
"""

from ml_collections import ConfigDict

_BURDA = {"objective": {"num_samples": 50}}


def get_config() -> ConfigDict:
    """The programs; a batch of 20 images is Burda's."""
    paper = "configs/train_mnist.py:paper"
    return ConfigDict({
        "order": (
            "train", "evaluate", "snr", "dequantize_digits", "flowpp_cifar10", "diffusion_cifar10",
            "dalle_digits", "dalle_digits_prior", "masked_digits", "masked_digits_elbo",
            "dalle_paper",
        ),
        "programs": {
            "train": {"part": "train", "config": paper, "changes": _BURDA},
            "evaluate": {
                "part": "evaluate", "config": paper, "changes": _BURDA,
                "evaluation": "configs/evaluate.py",
            },
            # At the largest K, by the last estimator.
            "snr": {
                "part": "snr", "config": "configs/snr_gaussian.py:near",
                "changes": {"estimators": ("dreg",)},
            },
            "dequantize_digits": {
                "part": "dequantize", "config": "configs/dequantize_digits.py",
                "model": "mixture_flow",
            },
            "flowpp_cifar10": {
                "part": "dequantize", "config": "configs/dequantize_flowpp.py:cifar10",
            },
            "diffusion_cifar10": {
                "part": "diffusion", "config": "configs/diffusion_images.py:cifar10",
                "model": "vdm",
            },
            "dalle_digits": {
                "part": "dalle", "config": "configs/dalle_digits.py", "model": "beta1",
            },
            "dalle_digits_prior": {
                "part": "dalle_prior", "config": "configs/dalle_digits.py", "model": "beta1",
            },
            "masked_digits": {"part": "masked", "config": "configs/masked_digits.py"},
            "masked_digits_elbo": {
                "part": "masked_evaluate", "config": "configs/masked_digits.py",
            },
            "dalle_paper": {"part": "dalle", "config": "configs/dalle_images.py:paper"},
        },
    })  # fmt: skip
