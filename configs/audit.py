"""Audit of a trained model; --config.run names the --workdir of its training.

Command: python -m experiments.audit --config=configs/audit.py \
    --config.run=runs/train_digits --workdir=runs/train_digits/audit
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """512 data simulated from the model."""
    return ConfigDict(
        {
            "run": "",
            "model": "",  # of a study, by its name; empty: the first
            "member": -1,  # which seed; -1: the first
            "checkpoint": "best",  # on validation; or latest, or a step
            "data_dir": "",  # where the data lie; empty: where training found them
            "seed": 0,
            "checks": {
                "num_data": 512,
                "num_samples": 16,  # K
                "num_gradients": 512,
                "num_temperatures": 0,  # of AIS on each datum; 0: none
                "num_draws": 8,  # of a claim, for each datum
                "false_alarm_rate": 1e-3,  # of each report
            },
            "memory": {"data_per_pass": 64},
        }
    )
