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
KEPT = {"num_samples": 20, "save_every": 500, "keep_checkpoints": 12}
MODELS = {
    "VAE": {"objective": "elbo", **KEPT},
    "IWAE": {"objective": "iwae", **KEPT},
    "DReG": {"objective": "dreg", **KEPT},
}


def _name_and_folder(run: str) -> tuple[str, str]:
    name, _, folder = run.partition("=")
    if not name or not folder:
        raise ValueError(f"runs are given as NAME=FOLDER with commas between, got {run!r}")
    return name, folder


def get_config(runs: str = "") -> ConfigDict:
    """Three models; or those of `runs`, NAME=FOLDER with commas between."""
    config = ConfigDict()
    config.training = "configs/train_digits.py"
    config.models = ConfigDict({} if runs else MODELS)  # name -> changes to that config
    config.runs = ConfigDict(dict(map(_name_and_folder, runs.split(",")) if runs else {}))
    config.checkpoint = "best"  # on validation; or latest, or a step
    config.member = -1  # which seed, of runs that trained several together
    config.data_dir = ""  # where the data lie; empty: where training finds them
    config.seed = 0  # of all draws here
    config.binarization_seed = 0  # of the images, which are binarised once for all models
    # Decomposition.
    config.train_images = 0  # 0: all
    config.draws = 50  # of z for each image
    config.curve_draws = 10  # likewise, at each checkpoint
    config.batch = 64  # of the estimates of I by minibatches
    config.num_batches = 200
    # Optimal prior.
    config.test_images = 0  # 0: all
    # Gap: a Gaussian of its own for each image, from that of the encoder on.
    config.gap_images = 100  # 0: all
    config.gap_steps = 1000  # of Adam, its rate falling to 0
    config.gap_learning_rate = 0.02
    config.gap_step_samples = 8  # draws of z a step
    config.gap_draws = 1000  # of z, for each ELBO
    config.gap_samples = 5000  # K of log p(x)
    # IWAE posterior; empty: not drawn.
    config.picture_model = ConfigDict({} if runs else {
        "latents": (2,), "objective": "iwae", "num_samples": 20, "num_steps": 3000,
    })  # fmt: skip
    config.picture_samples = (2, 8, 64)  # K
    config.picture_sets = 64  # of K - 1 draws, eight times
    config.picture_nodes = 161  # of the grid, on each side
    config.picture_draws = 1000  # resampled
    # In memory at once, on each device.
    config.images_per_pass = 20
    config.samples_per_pass = 125
    config.posteriors_per_pass = 500
    return config
