"""Values about log p(x) that are no lower bounds, each with its kind.

`eubo` is an upper bound. `cubo` is one where it is exact, and an estimate from draws. `jackknife`,
`psis`, `thermodynamic_right` and `multilevel`, which is unbiased, are estimates: they may lie on
either side. Each returns a `Value`, which says so.
"""

from bounds._evidence import Value as Value
from bounds._evidence import cubo as cubo
from bounds._evidence import eubo as eubo
from bounds._evidence import jackknife as jackknife
from bounds._evidence import psis as psis
from bounds._evidence import thermodynamic_right as thermodynamic_right
from bounds._multilevel import multilevel as multilevel

__all__ = ["Value", "cubo", "eubo", "jackknife", "multilevel", "psis", "thermodynamic_right"]
