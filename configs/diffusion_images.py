"""Diffusion models of MNIST, Fashion-MNIST and CIFAR-10, 8 bits: DDPM and VDM, by the bound.

Command: python -m experiments.diffusion --config=configs/diffusion_images.py:mnist \
    --workdir=runs/diffusion_mnist --config.data_dir=data
For accelerators; not run so far, so nothing is expected. Published on CIFAR-10, bits/dim: DDPM 3.70
trained on L and 3.75 on L_simple (Ho et al. 2020), 2.94 (improved DDPM), 2.637 (VDM's released
checkpoint).
"""

from ml_collections import ConfigDict

VARIANTS = ("mnist", "fashion_mnist", "cifar10", "cifar10_first4000")


def _ddpm(variance: str, *, schedule: str = "linear", **objective: str) -> dict:
    return {
        "chain": {
            "schedule": schedule, "timesteps": 1000, "evaluation_timesteps": 0,
            "prediction": "eps", "variance": variance,
        },
        "network": {"fourier": ()},
        "objective": objective,
    }  # fmt: skip


MODELS = {
    "vdm": {},
    "ddpm": _ddpm("fixed_small"),
    "ddpm_simple": _ddpm("fixed_large", name="simple", times="uniform"),
    "improved_ddpm": _ddpm("learned", schedule="cosine", times="importance"),
}


def get_config(variant: str = "mnist") -> ConfigDict:
    """`variant` is a data set of 8-bit images."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    color = variant.startswith("cifar10")
    return ConfigDict({
        "models": MODELS,
        "compare": (("vdm", "ddpm"), ("ddpm", "ddpm_simple")),
        "seeds": (0,),
        "together": False,
        "data_dir": "data",
        "data": {"name": variant},
        "chain": {
            "schedule": "vdm_linear", "gamma_min": -13.3, "gamma_max": 5.0, "timesteps": 0,
            "evaluation_timesteps": 1000, "prediction": "v", "variance": "fixed_small",
            "decoder": "gaussian",
        },
        # DDPM's 35.7 M parameters for colour have four resolutions.
        "network": {
            "name": "unet",
            "width": 128 if color else 64,
            "multipliers": (1, 2, 2, 2) if color else (1, 2, 2),
            "num_blocks": 2,
            "attention": (1,),
            "fourier": (7, 8),  # half and whole periods of 8-bit levels
            "dropout": 0.1,
            "dtype": "float32",
        },
        "objective": {"name": "bound", "times": "low_discrepancy"},
        "optimizer": {
            "name": "adam_warmup", "learning_rate": 2e-4, "warmup_steps": 5000 if color else 1000,
            "clip_norm": 1.0,
        },
        "training": {
            "batch_size": 128, "num_steps": 800_000 if color else 100_000, "ema_decay": 0.9999,
            "validation_samples": 4,
        },
        "records": {"log_every": 100, "save_every": 5000, "keep_checkpoints": 2},
        "evaluation": {"num_images": 1000, "num_times": 64, "seed": 0, "sample_grid": 64},
        "memory": {"images_per_pass": 250},
    })  # fmt: skip
