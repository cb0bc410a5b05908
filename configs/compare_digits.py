"""All families of bounds on digits, as integers 0 .. 16.

Command: python -m experiments.compare --config=configs/compare_digits.py \
    --workdir=runs/compare_digits
Machine and time: 2 cores of a Xeon at 2.10 GHz, 20 min 42 s (`make compare`).
Expected, test bits/dim (standard error over 300 images): VAE ELBO 2.117 (.016), IWAE-5000 1.879
(.014), AIS 1.867 (.014); Flow++ ELBO 1.919 (.013) uniform, 1.880 (.014) variational; exact 1.957
(.013) autoregressive, 1.982 (.012) subset flow; diffusion 1.928 (.013), T = infinity; dVAE exact
1.977 (.015), bound 2.043 (.016). Published: none for these images.
Budget: one seed of each model; standard errors are over the test images. A family whose `run` names
the --workdir of a finished run of its program is taken from there and not trained.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Six families, nine models."""
    return ConfigDict(
        {
            "data_dir": "",
            "data": {"name": "digits_shuffled"},
            "order": (
                "VAE",
                "Flow",
                "Exact",
                "Diffusion",
                "Masked",
                "dVAE",
            ),  # of the table; a part will do
            "families": FAMILIES,
        }
    )


# title: in the table, else the name; program: train (a VAE, scored by evaluate), dequantize,
# diffusion, masked or dalle; config: its file; changes: sections and fields of that config; run: a
# finished run in the place of both.
FAMILIES = {
    "VAE": {
        "program": "train",
        "config": "configs/train_digits.py",
        "changes": {
            "model": {"likelihood": "discretized_logistic", "hidden": ((200, 200),)},
        },
        "evaluation": "configs/evaluate.py",
        "evaluation_changes": {
            "annealing": {
                "temperatures": 100, "chains": 8, "test_images": 300, "simulated_images": 50,
            },
        },
        "run": "",
    },
    "Flow": {
        "title": "Flow++",
        "program": "dequantize",
        "config": "configs/dequantize_digits.py",
        "changes": {
            "seeds": (0,),
            "compare": (),
            "models": {
                "uniform": {"model": {"width": 128}},
                "variational": {"model": {"width": 117}, "noise": {"name": "flow"}},
                "importance-weighted": {
                    "model": {"width": 117}, "noise": {"name": "flow"},
                    "objective": {"name": "iwae", "num_samples": 4},
                },
            },
        },
        "run": "",
    },
    "Exact": {
        "program": "dequantize",
        "config": "configs/dequantize_digits.py:exact",
        "changes": {
            "seeds": (0,),
            "compare": (),
            "evaluation": {"sample_grid": 0},
            "optimizer": {"learning_rate": 1e-3},
            "models": {
                "autoregressive": {
                    "model": {"density": "discretized", "width": 384, "dropout": 0.5},
                    "objective": {"name": "exact"},
                },
                "subset_flow": {
                    "model": {"density": "subset_flow", "width": 256},
                    "noise": {"name": "logistic", "width": 128},
                    "refit": {"noise": "logistic"},
                },
            },
        },
        "run": "",
    },
    "Diffusion": {
        "program": "diffusion",
        "config": "configs/diffusion_digits.py",
        "changes": {"seeds": (0,)},
        "run": "",
    },
    "Masked": {
        "program": "masked",
        "config": "configs/masked_digits.py",
        "changes": {"seeds": (0,), "evaluation": {"steps": (64,)}},
        "run": "",
    },
    "dVAE": {
        "program": "dalle",
        "config": "configs/dalle_digits.py",
        "changes": {
            "seeds": (0,), "compare": (), "models": {"beta1": {"objective": {"beta": 1.0}}},
        },
        "run": "",
    },
}  # fmt: skip
