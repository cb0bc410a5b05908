"""Programs: `python -m experiments.NAME --config=configs/NAME.py --workdir=...`."""

import importlib.util
import sys

_NEEDED = (
    "absl", "flax", "matplotlib", "ml_collections", "optax", "orbax", "pydantic", "sklearn",
    "tensorboardX", "tqdm",
)  # fmt: skip
_missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
if _missing:
    print(
        f"The experiments need packages that are not installed ({', '.join(_missing)}); "
        "run: pip install -e '.[experiments]'",
        file=sys.stderr,
    )
    raise SystemExit(2)
