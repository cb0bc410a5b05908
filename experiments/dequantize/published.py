"""Bits/dim that others published, each with what was trained. None of them was run here."""

_TABLE = "Ho et al. 2019 (arXiv 1902.00275), Table 1"
# CIFAR-10, ImageNet 32x32, ImageNet 64x64.
_BY_MODEL = {
    ("RealNVP", "flow, uniform noise"): (3.49, 4.28, None),
    ("Glow", "flow, uniform noise"): (3.35, 4.09, 3.81),
    ("IAF-VAE", "VAE with a flow posterior, discretised pixels"): (3.11, None, None),
    ("Flow++", "flow, learned noise"): (3.08, 3.86, 3.69),
    ("Multiscale PixelCNN", "autoregressive over integers, exact"): (None, 3.95, 3.70),
    ("PixelCNN", "autoregressive over integers, exact"): (3.14, None, None),
    ("PixelRNN", "autoregressive over integers, exact"): (3.00, 3.86, 3.63),
    ("Gated PixelCNN", "autoregressive over integers, exact"): (3.03, 3.83, 3.57),
    ("PixelCNN++", "autoregressive over integers, exact"): (2.92, None, None),
    ("Image Transformer", "autoregressive over integers, exact"): (2.90, 3.77, None),
    ("PixelSNAIL", "autoregressive over integers, exact"): (2.85, 3.80, 3.52),
}
_TUTORIAL = "UvA deep learning tutorial 11, 200 epochs, IW-8 on the test set"


PUBLISHED: dict[str, list[tuple[str, float, str, str]]] = {
    **{
        dataset: [
            (name, values[column], what, _TABLE)
            for (name, what), values in _BY_MODEL.items()
            if values[column] is not None
        ]
        for column, dataset in enumerate(("cifar10", "imagenet32", "imagenet64"))
    },
    "mnist": [
        ("uniform", 1.078, "small flow, 556,000 parameters, uniform noise", _TUTORIAL),
        ("variational", 1.041, "the same with learned noise, 628,000", _TUTORIAL),
        ("multi-scale", 1.021, "multi-scale, learned noise, 1.71 million", _TUTORIAL),
    ],
}
