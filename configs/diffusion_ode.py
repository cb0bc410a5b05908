"""Digits by the probability-flow ODE: a VDM and flow matching, ELBO and ODE side by side.

Command: python -m experiments.diffusion --config=configs/diffusion_ode.py \
    --workdir=runs/diffusion_ode
Machine and time: 2 cores of an AMD EPYC, 4 min 15 s.
Expected, test bits/dim, standard error over 3 seeds, on 10 images by the ODE with learned noise and
IW-8: VDM 2.693 (.015), flow matching 2.510 (.017); ELBO, T = infinity, on 300: 2.387 (.004) and
2.499 (.002). Published: none for these images.
"""

from ml_collections import ConfigDict

_STRAIGHT = {
    "chain": {"schedule": "straight", "prediction": "velocity"},
    "objective": {"name": "flow_matching"},
}


def get_config() -> ConfigDict:
    """Two models whose divergence is exact: their network is a perceptron, which is quick."""
    return ConfigDict({
        "models": {"vdm": {}, "flow_matching": _STRAIGHT},
        "compare": (("flow_matching", "vdm"),),  # pairs of names
        "seeds": (0, 1, 2),
        "together": False,  # True: all seeds of a model as one
        "data_dir": "",
        "data": {"name": "digits_shuffled"},
        "chain": {  # see diffusion_digits; straight is the schedule of flow matching
            "schedule": "vdm_linear", "gamma_min": -8.0, "gamma_max": 5.0, "timesteps": 0,
            "evaluation_timesteps": 128, "prediction": "v", "variance": "fixed_small",
            "decoder": "gaussian",
        },
        "network": {
            "name": "gated_mlp", "width": 128, "num_blocks": 2, "multipliers": (), "attention": (),
            "fourier": (3, 4), "dropout": 0.1, "dtype": "float32",
        },
        "objective": {"name": "bound", "times": "low_discrepancy"},
        "optimizer": {
            "name": "adam_cosine", "learning_rate": 3e-3, "warmup_steps": 200, "clip_norm": 1.0,
        },
        "training": {
            "batch_size": 64, "num_steps": 4000, "ema_decay": 0.995, "validation_samples": 16,
        },
        "records": {"log_every": 200, "save_every": 1000, "keep_checkpoints": 1},
        "evaluation": {
            "num_images": 0,  # of the test set; 0: all
            "num_times": 64,  # of each image, for the bound of continuous time
            "seed": 0,
            "sample_grid": 64,
            "ode": {
                "noises": ("uniform", "truncated_normal", "learned"),
                "num_samples": (1, 8),  # k of IWAE-k over the noise
                "num_images": 10,  # the first of the test set; 0: all
                "path": "vp",  # or straight: the coordinates of the solver, for all models
                "num_steps": 64,  # of Runge-Kutta
                "largest_error": 0.05,  # of the solver, in nats per dimension
                "trace": "exact",  # or hutchinson, of one draw alone
                "noise_steps": 400,  # of the training of the learned noise
            },
        },
        "memory": {"images_per_pass": 100},
    })  # fmt: skip
