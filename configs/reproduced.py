"""Published numbers, measured again at budgets that two cores carry, part by part.

Command: python -m experiments.reproduced --config=configs/reproduced.py \
    --workdir=runs/reproduced --config.data_dir=data
One part: '--config.order=("toy",)'. Machine and time: docs/reproduced.md, for each part.
Expected: docs/reproduced.json, and published: the table in docs/reproduced.md.
"""

from ml_collections import ConfigDict


def _reference(*grid: str, seeds: tuple[int, ...], **changes) -> dict:
    return {
        "program": "reference",
        "config": "configs/reference_mnist.py:hundred_epochs",
        "changes": {"grid": grid, "seeds": seeds, **changes},
    }


def _phase(variance: float) -> dict:
    """VR-IWAE on the Gaussian toy, into weight collapse; at 1/2 log-weights are normal."""
    return {
        "program": "snr",
        "config": "configs/snr_phase.py",
        "changes": {
            "toy": {"variance": variance, "perturbation": 0.02},
            "num_dims": (5, 20, 200), "alphas": (0.0, 0.5), "num_samples": (64, 256, 1024),
            "replicates": {"number": 400}, "gaps": 5000,
        },
    }  # fmt: skip


def _annealed(start: str, temperatures: int) -> dict:
    """An IWAE of another part between AIS and, on data of its own, reverse AIS."""
    return {
        "program": "evaluate",
        "config": "configs/evaluate.py",
        "changes": {
            "run": "{parts}/burda_k50/iwae_K50_seed0",
            "checkpoint": "latest",  # whose log p is in that part
            "evaluation": {"num_samples": 10_000, "num_images": 100, "curve_alphas": ()},
            "annealing": {
                "start": start, "temperatures": temperatures, "simulated_images": 50,
            },
        },
    }  # fmt: skip


def _encoder(*hidden: int) -> dict:
    return {
        "model": {"encoder_hidden": (hidden,)},
        "objective": {"name": "elbo", "num_samples": 1},
        "training": {"num_steps": 100 * 2980},
        "evaluation": {"num_images": 100},
    }


def _steps(batch_size: int, num_steps: int, *, warmup: int = 100, **training) -> dict:
    return {
        "optimizer": {"warmup_steps": warmup},
        "training": {"batch_size": batch_size, "num_steps": num_steps, **training},
        "records": {"log_every": 50, "save_every": 500},
    }


def _dvae() -> dict:
    return {
        **_steps(32, 1500),
        "model": {"width": 16, "embedding": 16},
        "objective": {"beta_steps": 300, "temperature_steps": 1000},
        "prior": {"num_layers": 2, "width": 64, "num_steps": 300, "learning_rate": 3e-3},
        "evaluation": {
            "num_images": 200, "num_samples": 64, "num_draws": 2, "temperatures": (0.0625,),
            "sample_grid": 0,
        },
    }  # fmt: skip


def _families() -> dict:
    """Every family of configs/compare_images.py for some minutes, and the flows of another part."""
    changes = {
        "VAE": {
            "training": {"num_steps": 20_000, "batch_size": 50},
            "records": {"log_every": 500, "save_every": 5000},
            "evaluation": {"num_samples": 100, "num_images": 100},
        },
        "Exact": {
            **_steps(32, 3000, ema_decay=0.99),
            "model": {"width": 256},
            "evaluation": {"num_images": 1000, "num_samples": (1,)},
        },
        "Diffusion": {
            **_steps(32, 3000, ema_decay=0.998, validation_samples=2),
            "chain": {"evaluation_timesteps": 100},
            "network": {"width": 16, "multipliers": (1, 2), "num_blocks": 1},
            "optimizer": {"name": "adam_cosine", "learning_rate": 2e-3, "warmup_steps": 100},
            "evaluation": {"num_images": 300, "num_times": 32, "sample_grid": 0},
        },
        "Masked": {
            **_steps(16, 2000, ema_decay=0.995),
            "network": {"num_layers": 2, "width": 32, "num_heads": 2},
            "optimizer": {"learning_rate": 2e-3, "warmup_steps": 100},
            "evaluation": {
                "num_images": 50, "num_counts": 16, "steps": (16,), "num_orders": 1,
                "sample_grid": 0,
            },
        },
        "dVAE": _dvae(),
    }  # fmt: skip
    families = {name: {"changes": own} for name, own in changes.items()}
    families["Flow"] = {"run": "{parts}/flowpp_mnist"}
    families["VAE"]["evaluation_changes"] = {
        "evaluation": {"num_images": 1000, "num_samples": 1000},
        "annealing": {"temperatures": 50, "chains": 4, "test_images": 30, "simulated_images": 10},
    }
    return families


BETAS = {"tenth": 0.1, "one": 1.0, "paper": 6.6}


def get_config() -> ConfigDict:
    """Short parts first."""
    parts = {
        "toy": {"program": "snr", "config": "configs/snr_gaussian.py:near", "changes": {}},
        "vdm_schedules": {
            "program": "diffusion",
            "config": "configs/diffusion_ode.py",
            "changes": {
                "models": {"learned": {"chain": {"schedule": "vdm_learned"}}}, "compare": (),
                "seeds": (0,),
                "evaluation": {
                    "ode": None, "sample_grid": 0, "schedules": ("vdm_linear", "straight"),
                },
            },
        },
        "daudel_gaussian": _phase(0.5),
        "daudel_linear": _phase(2 / 3),
        "rainforth_mnist": {
            "program": "snr",
            "config": "configs/snr_vae.py",
            "changes": {
                "data": {"name": "mnist"}, "num_samples": (1, 2, 4, 8, 16, 32, 64),
                "replicates": {"number": 400},
            },
        },
        "flowpp_mnist": {
            "program": "dequantize",
            "config": "configs/dequantize_mnist.py:mnist",
            "changes": {
                # The average over 1,000 steps of that config would still hold those of the start.
                **_steps(32, 2000, ema_decay=0.99, validation_samples=1),
                "model": {"width": 24, "num_layers": 1, "num_components": 4},
                "noise": {
                    "width": 16, "num_couplings": 2, "num_components": 4, "num_features": 16,
                    "num_feature_blocks": 1,
                },
                "evaluation": {"num_images": 1000, "num_samples": (1, 8), "sample_grid": 0},
                "models": {
                    "flowpp": {},
                    "uniform": {"noise": {"name": "uniform"}},
                    "affine": {"model": {"coupling": "affine"}},
                },
                "compare": (), "seeds": (0,),
            },
        },
        "dalle_beta": {
            "program": "dalle",
            "config": "configs/dalle_images.py:fashion_mnist",
            "changes": {
                **_dvae(),
                "models": {name: {"objective": {"beta": beta}} for name, beta in BETAS.items()},
                "seeds": (0, 1, 2),
            },
        },
        "cremer": {
            "program": "surgery",
            "config": "configs/surgery_digits.py",
            "changes": {
                "training": "configs/train_mnist.py:released_code",
                "models": {
                    "small": _encoder(50), "paper": _encoder(200, 200),
                    "large": _encoder(500, 500),
                },
                "decomposition": {"num_images": 1000, "num_draws": 5, "curve_draws": 2},
                "prior": {"num_images": 100},
                "gap": {"splits": ("train", "test"), "num_images": 1000},
                "picture": {"model": {}},
            },
        },
        "compare_mnist": {
            "program": "compare",
            "config": "configs/compare_images.py:mnist",
            "changes": {"families": _families()},
        },
        "burda_k1": _reference("elbo:1", "dreg:1", seeds=(0, 1)),
        "burda_k5": _reference("iwae:5", "elbo:5", "dreg:5", seeds=(0, 1)),
        "burda_k50": _reference("iwae:50", "elbo:50", "dreg:50", seeds=(0,)),
        "larochelle": _reference(
            "elbo:1", "iwae:50", seeds=(0,), data={"name": "binarized_mnist"},
            training={"num_steps": 250_000},  # 100 epochs of its 50,000 images
        ),
        "rainforth_table": {
            "program": "reference",
            "config": "configs/reference_mnist.py:hundred_epochs,rainforth",
            "changes": {"seeds": (0,), "training": {"num_steps": 10 * 2980}},
        },
    }  # fmt: skip
    parts |= {
        f"wu_{start}_{temperatures}": _annealed(start, temperatures)
        for temperatures in (100, 1000)
        for start in ("encoder", "prior")
    }
    return ConfigDict({"data_dir": "data", "order": tuple(parts), "parts": parts})
