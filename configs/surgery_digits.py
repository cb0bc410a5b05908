"""ELBO surgery on scikit-learn's digits: a VAE, an IWAE and a DReG-trained IWAE.

Command: python -m experiments.surgery --config=configs/surgery_digits.py \
    --workdir=runs/surgery_digits
Of runs of experiments.train that are there, and of nothing else:
    --config=configs/surgery_digits.py:NAME=FOLDER,NAME=FOLDER
Machine and time: 2 cores of a Xeon at 2.10 GHz, 5 min 17 s with installation (`make surgery`).
Expected after training, nats, standard error over draws: I 4.884 (.006), 3.984 (.007), 3.718 (.007)
and marginal KL .542 (.004), .411 (.003), .308 (.003) for VAE, IWAE, DReG; more in docs/surgery.md.
Published: none.
"""

from ml_collections import ConfigDict

# 20 draws of z a step for each of them; checkpoints for the curves over training.
RECORDS = {"save_every": 500, "keep_checkpoints": 12}
MODELS = {
    "VAE": {"objective": {"name": "elbo", "num_samples": 20}, "records": RECORDS},
    "IWAE": {"objective": {"name": "iwae", "num_samples": 20}, "records": RECORDS},
    "DReG": {"objective": {"name": "dreg", "num_samples": 20}, "records": RECORDS},
}
PLANE = {
    "model": {"latents": (2,)},
    "objective": {"name": "iwae", "num_samples": 20},
    "training": {"num_steps": 3000},
}


def _name_and_folder(run: str) -> tuple[str, str]:
    name, _, folder = run.partition("=")
    if not name or not folder:
        raise ValueError(f"runs are given as NAME=FOLDER with commas between, got {run!r}")
    return name, folder


def get_config(runs: str = "") -> ConfigDict:
    """Three models; or those of `runs`, NAME=FOLDER with commas between."""
    return ConfigDict({
        "training": "configs/train_digits.py",
        "models": {} if runs else MODELS,  # name -> changes to that config
        "runs": dict(map(_name_and_folder, runs.split(","))) if runs else {},
        "checkpoint": "best",  # on validation; or latest, or a step
        "member": -1,  # which seed, of runs that trained several together
        "data_dir": "",  # where the data lie; empty: where training finds them
        "seed": 0,  # of all draws here
        "data": {"binarization_seed": 0},  # of the images, binarised once for all models
        "decomposition": {
            "num_images": 0,  # of training; 0: all
            "num_draws": 50,  # of z for each image
            "curve_draws": 10,  # likewise, at each checkpoint
            "batch_size": 64,  # of the estimates of I by minibatches
            "num_batches": 200,
        },
        "prior": {"num_images": 0},  # of the test set; 0: all
        # A Gaussian of its own for each image, from that of the encoder on.
        "gap": {
            "splits": ("test",),  # or "train", or both
            "num_images": 100,  # of each; 0: all
            "num_steps": 1000,  # of Adam, its rate falling to 0
            "learning_rate": 0.02,
            "step_samples": 8,  # draws of z a step
            "num_draws": 1000,  # of z, for each ELBO
            "num_samples": 5000,  # K of log p(x)
        },
        # The posterior that IWAE's weights make.
        "picture": {
            "model": {} if runs else PLANE,  # empty: none is drawn
            "num_samples": (2, 8, 64),  # K
            "num_sets": 64,  # of K - 1 draws, eight times
            "num_nodes": 161,  # of the grid, on each side
            "num_draws": 1000,  # resampled
        },
        # On each device at once.
        "memory": {"images_per_pass": 20, "samples_per_pass": 125, "posteriors_per_pass": 500},
    })  # fmt: skip
