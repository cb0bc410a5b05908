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
        "dataset": "imagenet32", "layout": ("checkerboard:7", "squeeze", "channels:3",
        "checkerboard:3"), "pointwise": False, "width": 128, "num_layers": 20, "dropout": 0.0,
        "noise_width": 128, "noise_layers": 8, "noise_couplings": 8, "noise_pointwise": False,
        "noise_feature_blocks": 8, "batch_size": 32, "learning_rate": 1e-3, "warmup_steps": 5000,
        "ema_decay": 0.999222,
    },
    "imagenet64": {
        "dataset": "imagenet64", "layout": ("squeeze", "checkerboard:4", "squeeze", "channels:2",
        "checkerboard:2", "squeeze", "channels:2", "checkerboard:2"), "pointwise": False,
        "num_layers": 16, "dropout": 0.0, "num_components": 4, "noise_components": 4,
        "noise_layers": 5, "noise_attention": False, "noise_pointwise": False,
        "noise_feature_blocks": 5, "batch_size": 72, "learning_rate": 4e-4, "warmup_steps": 10000,
    },
}  # fmt: skip
# Parameters matched by width, as far as four heads allow; those of the paper but for the last.
_AFFINE = {"coupling": "affine", "noise_coupling": "affine", "width": 108, "noise_width": 108}
ABLATION = {
    "flowpp": {},
    "uniform": {"noise": "uniform", "width": 104},
    "affine": _AFFINE,
    "no_attention": {"attention": False, "noise_attention": False, "width": 107},
}


def get_config(variant: str = "cifar10") -> ConfigDict:
    """`variant` is cifar10, ablation (on CIFAR-10), imagenet32 or imagenet64."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    ablation = variant == "ablation"
    config = ConfigDict()
    config.models = ConfigDict(ABLATION if ablation else {"flowpp": {}})
    config.compare = tuple((n, "flowpp") for n in ABLATION if n != "flowpp") if ablation else ()
    config.seeds = (0,)
    config.together = False
    config.dataset = "cifar10"
    config.data_dir = "data"
    config.density = "flow"
    config.coupling = "mixture"
    config.num_components = 32
    config.layout = _CIFAR10
    config.norm = "pixel"
    config.pointwise = True
    config.network = "convolutional"
    config.width = 96  # filters
    config.num_layers = 10  # blocks
    config.attention = True
    config.dropout = 0.2
    config.noise = "flow"
    config.noise_width = 96
    config.noise_layers = 2
    config.noise_couplings = 4
    config.noise_coupling = "mixture"
    config.noise_components = 32
    config.noise_norm = True
    config.noise_pointwise = True
    config.noise_attention = True
    config.noise_features = 32
    config.noise_feature_blocks = 3
    config.refit_noise = ""
    config.refit_steps = 1000
    config.objective = "elbo"
    config.num_samples = 1
    config.num_groups = 1
    config.alpha = 0.5
    config.beta = 0.5
    config.sleep = False
    config.optimizer = "adam_warmup"
    config.learning_rate = 3e-4
    config.warmup_steps = 2000
    config.batch_size = 64
    config.num_steps = 281_250  # 400 epochs of CIFAR-10's 45,000 training images
    config.clip_norm = 1.0
    config.ema_decay = 0.999
    config.log_every = 50
    config.save_every = 1000
    config.keep_checkpoints = 2
    config.validation_samples = 1
    config.evaluation_images = 0  # 0: all test images
    config.evaluation_samples = (1, 8, 64)
    config.evaluation_seed = 0
    config.images_per_pass = 8
    config.samples_per_pass = 8
    config.sample_grid = 64
    for field, value in VARIANTS[variant].items():
        config[field] = value
    return config
