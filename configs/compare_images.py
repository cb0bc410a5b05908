"""All families of bounds on MNIST, Fashion-MNIST or CIFAR-10, 8 bits. No number of these was
measured here.

Command: python -m experiments.compare --config=configs/compare_images.py:fashion_mnist \
    --config.data_dir=data --workdir=runs/compare_fashion_mnist
For accelerators: the families have the budgets of their own configs. CIFAR-10 has no captions, so
no dVAE.
"""

from ml_collections import ConfigDict

VARIANTS = ("mnist", "fashion_mnist", "cifar10")
IMAGES = 1000  # of the test set, the first


def get_config(variant: str = "mnist") -> ConfigDict:
    """`variant` is a data set."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    config = ConfigDict()
    config.dataset = variant
    config.data_dir = "data"
    colour = variant == "cifar10"
    families = ("VAE", "Flow", "Exact", "Diffusion", "dVAE")
    config.order = families[: 4 if colour else 5]
    first = {"evaluation_images": IMAGES}
    noises = {
        "uniform": {"noise": "uniform"},
        "variational": {"noise": "flow"},
        "importance-weighted": {"noise": "flow", "objective": "iwae", "num_samples": 4},
    }
    flow = {
        "config": "configs/dequantize_flowpp.py" if colour else "configs/dequantize_mnist.py",
        "changes": {**first, "compare": (), "models": noises, "seeds": (0,)},
    }
    exact = {
        "config": "configs/dequantize_mnist.py",
        "changes": {
            **first, "compare": (), "seeds": (0,), "sample_grid": 0, "network": "dense",
            "width": 1024, "num_layers": 2, "dropout": 0.3,
            "models": {"autoregressive": {"density": "discretized", "objective": "exact"}},
        },
    }  # fmt: skip
    config.families = ConfigDict({
        "VAE": {
            "program": "train", "config": "configs/train_mnist.py", "run": "",
            "changes": {"likelihood": "discretized_logistic", "num_steps": 100_000},
            "evaluation": "configs/evaluate.py", "evaluation_changes": {"num_images": IMAGES},
        },
        "Flow": {"title": "Flow++", "program": "dequantize", "run": "", **flow},
        "Exact": {"program": "dequantize", "run": "", **exact},
        "Diffusion": {
            "program": "diffusion", "config": f"configs/diffusion_images.py:{variant}", "run": "",
            "changes": {"compare": (), "models": {"vdm": {}}},
        },
        "dVAE": {
            "program": "dalle", "config": "configs/dalle_images.py:fashion_mnist", "run": "",
            "changes": {**first, "seeds": (0,), "text_length": 1 if variant == "mnist" else 2},
        },
    })  # fmt: skip
    if colour:
        del config.families["dVAE"]
    return config
