"""What a program ran with and on."""

import os
import platform
from typing import Any


def environment() -> dict[str, Any]:
    """Versions, device and machine, for the record."""
    import flax
    import jax
    import jaxlib
    import numpy
    import optax

    import bounds

    devices = jax.devices()
    processes = {"num_processes": jax.process_count()} if jax.process_count() > 1 else {}
    return {
        "python": platform.python_version(),
        "bounds": bounds.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "numpy": numpy.__version__,
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        **processes,
        "machine": f"{platform.machine()} {_processor()}, {os.cpu_count()} cores",
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown processor"
