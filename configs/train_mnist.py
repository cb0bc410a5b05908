"""VAEs of Burda et al. 2015 on 28x28 images: short, paper or released_code, with one or two layers.

Command: python -m experiments.train --config=configs/train_mnist.py:short --workdir=runs/mnist \
    --config.data_dir=data
Other data: --config.dataset=fashion_mnist, binarized_mnist, omniglot or omniglot_rebuilt. Other
bounds: --config.objective=dreg --config.num_samples=50, and so on.
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
    config = ConfigDict()
    config.seed = 0
    config.dataset = "mnist"
    config.data_dir = "data"
    config.likelihood = "bernoulli"
    config.binarization_seed = 0
    config.latents = (100, 50) if two else (50,)
    config.hidden = ((200, 200), (100, 100)) if two else ((200, 200),)
    config.objective = "iwae"
    config.num_samples = 5
    config.num_groups = 1
    config.beta = 0.5
    config.alpha = 0.5
    config.sleep = False
    config.optimizer = "adam" if short else protocol
    config.learning_rate = 1e-3  # of adam
    config.warmup_steps = 0  # of adam_warmup and adam_cosine
    config.batch_size = 20
    config.num_steps = 2980 if short else 0  # one epoch; 0: Burda's 3,280 epochs
    config.clip_norm = 0.0
    config.ema_decay = 0.0
    # Signals are looked at as often; an epoch takes an accelerator a second, a CPU up to 30.
    config.log_every = 298 if short else 2980
    config.save_every = 1490 if short else 10 * 2980
    config.keep_checkpoints = 2
    config.validation_samples = 64
    config.few_samples = 64
    config.test_samples = 5000
    config.test_images = 1000 if short else 0
    return config
