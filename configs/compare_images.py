"""All families of bounds on MNIST, Fashion-MNIST or CIFAR-10, 8 bits. No number was measured here
at these sizes; smaller ones on MNIST are in docs/compare.md.

Command: python -m experiments.compare --config=configs/compare_images.py:fashion_mnist \
    --config.data_dir=data --workdir=runs/compare_fashion_mnist
For accelerators: the families have the budgets of their own configs. CIFAR-10 has no captions, so
no dVAE, and too many pixels for a masked model of each one.
"""

from ml_collections import ConfigDict

VARIANTS = ("mnist", "fashion_mnist", "cifar10")
IMAGES = 1000  # of the test set, the first


def get_config(variant: str = "mnist") -> ConfigDict:
    """`variant` is a data set."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    color = variant == "cifar10"
    first = {"num_images": IMAGES}
    iwae = {"name": "iwae", "num_samples": 4}
    noises = {
        "uniform": {"noise": {"name": "uniform"}},
        "variational": {"noise": {"name": "flow"}},
        "importance-weighted": {"noise": {"name": "flow"}, "objective": iwae},
    }
    families = {
        "VAE": {
            "program": "train", "config": "configs/train_mnist.py", "run": "",
            "changes": {
                "model": {"likelihood": "discretized_logistic"},
                "training": {"num_steps": 100_000},
            },
            "evaluation": "configs/evaluate.py", "evaluation_changes": {"evaluation": first},
        },
        "Flow": {
            "title": "Flow++", "program": "dequantize", "run": "",
            "config": "configs/dequantize_flowpp.py" if color else "configs/dequantize_mnist.py",
            "changes": {"evaluation": first, "compare": (), "models": noises, "seeds": (0,)},
        },
        "Exact": {
            "program": "dequantize", "config": "configs/dequantize_mnist.py", "run": "",
            "changes": {
                "compare": (), "seeds": (0,), "evaluation": {**first, "sample_grid": 0},
                "model": {"network": "dense", "width": 1024, "num_layers": 2, "dropout": 0.3},
                "models": {
                    "autoregressive": {
                        "model": {"density": "discretized"}, "objective": {"name": "exact"},
                    },
                },
            },
        },
        "Diffusion": {
            "program": "diffusion", "config": f"configs/diffusion_images.py:{variant}", "run": "",
            "changes": {"compare": (), "models": {"vdm": {}}},
        },
        "Masked": {
            "program": "masked", "config": "configs/masked_digits.py", "run": "",
            "changes": {
                "seeds": (0,),
                "network": {"num_layers": 8, "width": 256, "num_heads": 8},
                "optimizer": {"learning_rate": 5e-4, "warmup_steps": 1000},
                "training": {"num_steps": 50_000, "ema_decay": 0.999, "validation_samples": 1},
                "evaluation": {"num_images": 100, "steps": (64,), "varied_images": 0},
                "memory": {"images_per_pass": 5},
            },
        },
        "dVAE": {
            "program": "dalle", "config": "configs/dalle_images.py:fashion_mnist", "run": "",
            "changes": {
                "evaluation": first, "seeds": (0,),
                "data": {"text_length": 1 if variant == "mnist" else 2},
            },
        },
    }  # fmt: skip
    if color:
        del families["dVAE"], families["Masked"]
    return ConfigDict(
        {
            "data_dir": "data",
            "data": {"name": variant},
            "order": tuple(families),
            "families": families,
        }
    )
