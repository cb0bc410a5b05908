"""A short visit to a GPU or TPU; `:tiny` is the same on a CPU, in seconds.

Command: python -m experiments.accelerator --config=configs/accelerator.py \
    --workdir=runs/accelerator
Machine and time: one accelerator, ten minutes at most, compiling included; not run on one so far,
so nothing is expected. Published, MNIST, -IWAE-5000 in nats (Burda et al. 2015, Table 1): 86.76,
85.54, 84.78 for K = 1, 5, 50 after 3,280 epochs, of which the visit has time for a few.
burda reads MNIST from data_dir (make data); the other parts make their images up.
"""

from ml_collections import ConfigDict

VARIANTS = ("visit", "tiny")
ORDER = (
    "numerics", "snr", "iwae50", "flowpp", "unet_float32", "unet_bfloat16", "log_p", "burda",
)  # fmt: skip


def get_config(variant: str = "visit") -> ConfigDict:
    """`variant` is visit, or tiny for a machine without an accelerator."""
    if variant not in VARIANTS:
        raise ValueError(f"the variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    return ConfigDict(_tiny() if variant == "tiny" else _visit())


def _unet(dtype: str, **network) -> dict:
    return {
        "part": "diffusion", "config": "configs/diffusion_images.py:cifar10", "model": "vdm",
        "changes": {"network": {"dtype": dtype, **network}},
    }  # fmt: skip


def _train(config: str, **changes) -> dict:
    return {"part": "train", "config": config, "changes": changes}


def _visit() -> dict:
    paper = "configs/train_mnist.py:paper"
    iwae50 = _train(paper, objective={"num_samples": 50})
    return {
        "order": ORDER,
        "seconds": {
            "visit": 600.0, "part": 120.0,
            "loop": 10.0,  # of what is repeated to time it
            "training": 50.0,  # of burda
        },
        "numerics": {"size": 2048, "draws": 1_000_000, "num_samples": 50, "num_pixels": 784},
        "snr": {
            "config": "configs/snr_gaussian.py:near",
            # What the slopes are fitted to, and no more: every K is a program to compile.
            "changes": {
                "num_samples": (1, 16, 64, 128, 256, 1000), "estimators": ("pathwise", "dreg"),
                "elbo": False, "memory": {"chunk_elements": 20_000_000},
            },
        },
        "iwae50": {"program": iwae50, "steps": 500},
        "flowpp": {
            "program": {"part": "dequantize", "config": "configs/dequantize_flowpp.py:cifar10"},
            "steps": 5,
        },
        "unet_float32": {"program": _unet("float32"), "steps": 10},
        "unet_bfloat16": {"program": _unet("bfloat16"), "steps": 10},
        # Of what the U-Net has become, in float32 and in bfloat16 on the same draws.
        "bound": {"num_images": 512, "num_times": 32, "images_per_pass": 128},
        "log_p": {
            "program": iwae50, "images_per_block": 1000, "num_blocks": 10, "few_samples": 64,
            "num_samples": 5000, "memory": {"images_per_pass": 200, "samples_per_pass": 500},
        },
        "burda": {
            "program": _train(paper, training={"batch_size": 100}),
            "data_dir": "data",
            "num_samples": (1, 5, 50),
            "seeds": (0, 1, 2),
            "evaluation": {"few_samples": 64, "num_samples": 5000, "num_images": 1000},
            "memory": {"images_per_pass": 200, "samples_per_pass": 500},
        },
    }  # fmt: skip


def _tiny_network(dtype: str) -> dict:
    network = {"name": "mlp", "width": 8, "num_blocks": 1, "dtype": dtype}
    return {
        "part": "diffusion", "config": "configs/diffusion_digits.py",
        "changes": {"network": network},
    }  # fmt: skip


def _tiny() -> dict:
    vae = {"latents": (4,), "hidden": ((8,),)}
    digits = "configs/train_digits.py"
    return {
        "order": ORDER,
        "seconds": {"visit": 600.0, "part": 120.0, "loop": 0.5, "training": 1.0},
        "numerics": {"size": 128, "draws": 1000, "num_samples": 4, "num_pixels": 64},
        "snr": {
            "config": "configs/snr_gaussian.py:near",
            "changes": {
                "toy": {"num_data": 16, "num_dims": 2}, "num_samples": (2, 8),
                "estimators": ("pathwise",), "elbo": False, "fit": {"first": 2},
                "replicates": {"number": 200, "num_blocks": 10},
            },
        },
        "iwae50": {"program": _train(digits, model=vae, objective={"num_samples": 50}), "steps": 5},
        "flowpp": {
            "program": {
                "part": "dequantize", "config": "configs/dequantize_digits.py",
                "changes": {
                    "models": {"flow": {}}, "compare": (),
                    "model": {
                        "num_components": 2, "num_layers": 1, "width": 8,
                        "layout": ("checkerboard:1",),
                    },
                },
            },
            "steps": 2,
        },
        "unet_float32": {"program": _tiny_network("float32"), "steps": 2},
        "unet_bfloat16": {"program": _tiny_network("bfloat16"), "steps": 2},
        "bound": {"num_images": 16, "num_times": 2, "images_per_pass": 16},
        "log_p": {
            "program": _train(digits, model=vae), "images_per_block": 20, "num_blocks": 3,
            "few_samples": 4, "num_samples": 50,
            "memory": {"images_per_pass": 20, "samples_per_pass": 25},
        },
        "burda": {
            "program": _train(
                digits, model=vae, optimizer={"name": "paper"},
                training={"num_steps": 0, "batch_size": 100},
            ),
            "data_dir": "",
            "num_samples": (1, 5),
            "seeds": (0, 1),
            "evaluation": {"few_samples": 4, "num_samples": 50, "num_images": 20},
            "memory": {"images_per_pass": 20, "samples_per_pass": 25},
        },
    }  # fmt: skip
