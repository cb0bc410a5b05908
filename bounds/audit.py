"""Is a number a bound? Identities that a model, its gradients and a claimed number must satisfy.

`model` audits a `LatentModel` and its objectives on simulated data; `claim` audits what any other
code says is a bound, of which it knows the numbers alone, with data from `simulated` or elsewhere.
Both give a `Report` of named checks, each a `Check` with an estimate, a standard error, a verdict
and what a violation means. None of them needs to know log p(x).
"""

from bounds._audit_claim import claim as claim
from bounds._audit_draws import simulated as simulated
from bounds._audit_model import model as model
from bounds._verdicts import Check as Check
from bounds._verdicts import Report as Report

__all__ = ["Check", "Report", "claim", "model", "simulated"]
