"""Flow++ at its published size (Ho et al. 2019), and the ablation of its three parts.

Command: python -m experiments.dequantize --config=configs/dequantize_flowpp.py:cifar10 \
    --workdir=runs/flowpp_cifar10 --config.data_dir=data
For accelerators; not run so far, so nothing is expected. Published, bits/dim: 3.08 on CIFAR-10,
3.86 and 3.69 on ImageNet 32x32 and 64x64 (Ho et al. 2019, Table 1).

Parameters, ours and those stated in the released code:
  cifar10            31,443,440 and 31,443,440
  ablation: uniform  32,324,408 and 32,324,408; affine 32,045,708 and 32,045,708; no attention
                     31,396,961, and 31,443,440 with a perceptron in its place
  imagenet32        157,364,934 and 168,955,724; imagenet64 63,268,328 and 73,489,960. The released
                     code has another nonlinearity before the last convolution of a coupling there,
                     which doubles its input, weight norm, and attention in the network of features.
"""

from ml_collections import ConfigDict

_CIFAR10 = ("checkerboard:4", "squeeze", "channels:2", "checkerboard:3")
VARIANTS = {
    "cifar10": {},
    "ablation": {},
    "imagenet32": {
        "data": {"name": "imagenet32"},
        "model": {
            "layout": ("checkerboard:7", "squeeze", "channels:3", "checkerboard:3"),
            "pointwise": False, "width": 128, "num_layers": 20, "dropout": 0.0,
        },
        "noise": {
            "width": 128, "num_layers": 8, "num_couplings": 8, "pointwise": False,
            "num_feature_blocks": 8,
        },
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 5000},
        "training": {"batch_size": 32, "ema_decay": 0.999222},
    },
    "imagenet64": {
        "data": {"name": "imagenet64"},
        "model": {
            "layout": (
                "squeeze", "checkerboard:4", "squeeze", "channels:2", "checkerboard:2", "squeeze",
                "channels:2", "checkerboard:2",
            ),
            "pointwise": False, "num_layers": 16, "dropout": 0.0, "num_components": 4,
        },
        "noise": {
            "num_components": 4, "num_layers": 5, "attention": False, "pointwise": False,
            "num_feature_blocks": 5,
        },
        "optimizer": {"learning_rate": 4e-4, "warmup_steps": 10000},
        "training": {"batch_size": 72},
    },
}  # fmt: skip
# Parameters matched by width, as far as four heads allow; those of the paper but for the last.
ABLATION = {
    "flowpp": {},
    "uniform": {"noise": {"name": "uniform"}, "model": {"width": 104}},
    "affine": {
        "model": {"coupling": "affine", "width": 108},
        "noise": {"coupling": "affine", "width": 108},
    },
    "no_attention": {"model": {"attention": False, "width": 107}, "noise": {"attention": False}},
}


def get_config(variant: str = "cifar10") -> ConfigDict:
    """`variant` is cifar10, ablation (on CIFAR-10), imagenet32 or imagenet64."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    ablation = variant == "ablation"
    config = ConfigDict({
        "models": ABLATION if ablation else {"flowpp": {}},
        "compare": tuple((n, "flowpp") for n in ABLATION if n != "flowpp") if ablation else (),
        "seeds": (0,),
        "together": False,
        "data_dir": "data",
        "data": {"name": "cifar10"},
        "model": {
            "density": "flow",
            "coupling": "mixture",
            "num_components": 32,
            "layout": _CIFAR10,
            "norm": "pixel",
            "pointwise": True,
            "network": "convolutional",
            "width": 96,  # filters
            "num_layers": 10,  # blocks
            "attention": True,
            "dropout": 0.2,
        },
        "noise": {
            "name": "flow", "width": 96, "num_layers": 2, "num_couplings": 4,
            "coupling": "mixture", "num_components": 32, "norm": True, "pointwise": True,
            "attention": True, "num_features": 32, "num_feature_blocks": 3,
        },
        "refit": {"noise": "", "num_steps": 1000},
        "objective": {
            "name": "elbo", "num_samples": 1, "num_groups": 1, "alpha": 0.5, "beta": 0.5,
            "sleep": False, "images_at_once": 0,
        },
        "optimizer": {
            "name": "adam_warmup", "learning_rate": 3e-4, "warmup_steps": 2000, "clip_norm": 1.0,
        },
        "training": {
            "batch_size": 64,
            "num_steps": 281_250,  # 400 epochs of CIFAR-10's 45,000 training images
            "ema_decay": 0.999,
            "validation_samples": 1,
        },
        "records": {"log_every": 50, "save_every": 1000, "keep_checkpoints": 2},
        "evaluation": {  # num_images 0: all test images
            "num_images": 0, "num_samples": (1, 8, 64), "seed": 0, "sample_grid": 64,
        },
        "memory": {"images_per_pass": 8, "samples_per_pass": 8},
    })  # fmt: skip
    config.update(VARIANTS[variant])  # section by section
    return config
