"""Metadata of the distribution `variational-bounds`; it installs the package `bounds` alone."""

import pathlib
import re

from setuptools import setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "bounds/__init__.py").read_text()).group(1)

EXPERIMENTS = [
    "absl-py>=2.1",
    # 0.12.9 and 0.12.11 do not import beside jax 0.10.
    "flax>=0.12.8,!=0.12.9,!=0.12.11",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "optax>=0.2.5",
    # The v1 interface as of 0.12.
    "orbax-checkpoint>=0.12.8",
    "pydantic>=2.10",
    "scikit-learn>=1.5",
    "tensorboardX>=2.6",
    "tqdm>=4.66",
]
DATA = ["pooch>=1.8", "tqdm>=4.66"]
DOCS = [
    "furo>=2025.12.19",
    "math-core>=0.9",
    "myst-nb>=1.4",
    "sphinx>=8.2",
    "ziamath>=0.13",  # for its font
]
ODE = ["diffrax>=0.7"]
TEST = [
    *EXPERIMENTS,
    *DATA,
    *DOCS,
    *ODE,
    "beartype>=0.20",
    "distrax>=0.1.9",
    "dm-haiku>=0.0.17",
    "equinox>=0.12",
    "flowjax>=19.1.2",
    "hypothesis>=6.100",
    "numpyro>=0.19",
    "pyright>=1.1.390",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "scipy>=1.13",
    # distrax takes the nightly; the last release has the same modules.
    "tfp-nightly>=0.26.0.dev20261027",
]

setup(
    name="variational-bounds",
    version=VERSION,
    description="Lower bounds on log-likelihood in JAX: values, gradients, diagnostics",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=["bounds"],
    package_data={"bounds": ["py.typed"]},
    install_requires=["jax>=0.10", "jaxtyping>=0.3", "numpy>=1.26"],
    extras_require={
        "experiments": EXPERIMENTS,
        "data": DATA,
        "ode": ODE,
        "test": TEST,
        "benchmark": [*EXPERIMENTS, "numpyro>=0.19", "torch==2.13.0"],
        "docs": [*EXPERIMENTS, *DOCS, "numpyro>=0.19"],
        "gcs": ["etils[epath-gcs]"],
        "cuda": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
