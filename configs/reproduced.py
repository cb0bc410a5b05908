"""Published numbers, measured again at budgets that two cores carry, part by part.

Command: python -m experiments.reproduced --config=configs/reproduced.py \
    --workdir=runs/reproduced --config.data_dir=data
One part: '--config.order=("toy",)'. Machine and time: docs/reproduced.md, for each part.
Expected and published: the table there.
"""

from ml_collections import ConfigDict


def _reference(*grid: str, seeds: tuple[int, ...], **changes) -> dict:
    return {
        "program": "reference",
        "config": "configs/reference_mnist.py:hundred_epochs",
        "changes": {"grid": grid, "seeds": seeds, **changes},
    }


def get_config() -> ConfigDict:
    """Short parts first."""
    parts = {
        "toy": {"program": "snr", "config": "configs/snr_gaussian.py:near", "changes": {}},
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
            "changes": {"seeds": (0,), "training": {"num_steps": 30 * 2980}},
        },
    }  # fmt: skip
    return ConfigDict({"data_dir": "data", "order": tuple(parts), "parts": parts})
