"""VAEs of Burda et al. 2015 on 28x28 images: short, paper or released_code, with one or two layers.

Command: python -m experiments.train --config=configs/train_mnist.py:short --workdir=runs/mnist \
    --config.data_dir=data
Other data: --config.data.name=fashion_mnist, binarized_mnist, omniglot or omniglot_rebuilt. Other
bounds: --config.objective.name=dreg --config.objective.num_samples=50, and so on.
paper and released_code train for 3,280 epochs; two layers: `:paper,two_layers`.
Machine and time: 2 cores of a Xeon at 2.10 GHz, 48 seconds (short).
Expected of short, IWAE with K = 5 after one epoch, first 1,000 test images, standard error over
images: IWAE-5000 -110.82 (.97), IWAE-64 -113.25 (1.00), ELBO -123.91 (1.08) nats.
Published, MNIST one layer, -IWAE-5000 in nats (Burda et al. 2015, Table 1): VAE 86.76, 86.47,
86.35 and IWAE 86.76, 85.54, 84.78 for K = 1, 5, 50.
"""

from ml_collections import ConfigDict

PROTOCOLS = ("short", "paper", "released_code")
LAYERS = ("one_layer", "two_layers")


def get_config(variant: str = "short") -> ConfigDict:
    """`variant` is a protocol, and behind a comma the layers if they are two."""
    protocol, _, layers = variant.partition(",")
    layers = layers or "one_layer"
    if protocol not in PROTOCOLS or layers not in LAYERS:
        raise ValueError(
            f"the variant must be one of {', '.join(PROTOCOLS)}, with ,two_layers behind it or "
            f"not, got {variant!r}."
        )
    two, short = layers == "two_layers", protocol == "short"
    return ConfigDict({
        "seed": 0,
        "data_dir": "data",
        "data": {"name": "mnist", "binarization_seed": 0},
        "model": {
            "likelihood": "bernoulli",
            "latents": (100, 50) if two else (50,),
            "hidden": ((200, 200), (100, 100)) if two else ((200, 200),),
        },
        "objective": {
            "name": "iwae", "num_samples": 5, "num_groups": 1, "beta": 0.5, "alpha": 0.5,
            "sleep": False, "images_at_once": 0,
        },
        "optimizer": {
            "name": "adam" if short else protocol,
            "learning_rate": 1e-3,  # of adam
            "warmup_steps": 0,
            "clip_norm": 0.0,
        },
        "training": {
            "batch_size": 20,
            "num_steps": 2980 if short else 0,  # one epoch; 0: Burda's 3,280 epochs
            "ema_decay": 0.0,
            "validation_samples": 64,
        },
        # Signals are looked at as often; an epoch takes an accelerator a second, a CPU up to 30.
        "records": {
            "log_every": 298 if short else 2980,
            "save_every": 1490 if short else 10 * 2980,
            "keep_checkpoints": 2,
        },
        "evaluation": {
            "few_samples": 64, "num_samples": 5000, "num_images": 1000 if short else 0,
        },
    })  # fmt: skip
