"""What changed between two configs of one run, and which changes ask for another run."""

from collections.abc import Mapping, Set
from typing import Any

from experiments.runtime.errors import UserError
from experiments.runtime.settings import NAMED_BY_USERS

# Where data and runs lie, and how much is in memory at once: they change from machine to machine,
# and results differ by rounding alone. A run is known by its checkpoint's checksum. `order` is the
# order of the families in a comparison, which collects its rows anew.
_OF_THE_MACHINE = {"data_dir", "memory", "run", "order"}
# What a training leaves on its way, and which results are set side by side.
OF_RECORDS = {"records", "compare"}
# What is asked of a model when it is trained: another value makes other rows, not another model.
_OF_EVALUATION = {"evaluation"}
# Whose fields need not be there.
_GIVEN_BY_USERS = NAMED_BY_USERS | {"changes", "evaluation_changes"}
# Optimizers whose steps are the same however many follow.
_WITHOUT_END = {"adam", "adam_warmup", "sgd"}


def differing_fields(
    there: dict[str, Any], now: dict[str, Any], *, of_the_model: bool = False
) -> str:
    """The fields in which two configs differ in what they ask for, with both values.

    Args:
      there: what was asked for before.
      now: what is asked for now.
      of_the_model: whether only such fields count as tell one trained model from another. The
        number of steps does where the learning rate depends on it, or a second training on the
        model; else more steps continue the first. More models and seeds beside those that are
        there do not, unless all seeds are trained as one.

    Returns:
      The end of a sentence; empty where they agree.
    """
    return ", ".join(_differing(_leaves(there), _leaves(now), of_the_model).values())


def _differing(there: dict[str, Any], now: dict[str, Any], of_the_model: bool) -> dict[str, str]:
    """The same by names of fields, of the leaves of two configs."""
    parts = {}
    for name in sorted(set(there) | set(now)):
        sections = _sections(name)
        if there.get(name) == now.get(name) or sections & _OF_THE_MACHINE:
            continue
        why = ""
        if of_the_model:
            if sections & (OF_RECORDS | _OF_EVALUATION) or _adds_models(name, there, now):
                continue
            why = _why_length_matters(now) if name.endswith("training.num_steps") else ""
            if name.endswith("training.num_steps") and not why:
                continue
        parts[name] = f"{name} ({there.get(name)} there, {now.get(name)} now{why})"
    return parts


def refuse_other(
    what: str, there: dict[str, Any], now: dict[str, Any], folder: str, *, of_the_model: bool = True
) -> None:
    """Refuses a config that differs from that of a folder, see `differing_fields`.

    A field that an earlier version of the program had not yet cannot be set back.

    Raises:
      UserError: it differs in what counts; `what` holds the other one, and `folder` may be another.
    """
    there, now = _leaves(there), _leaves(now)
    fields = _differing(there, now, of_the_model)
    if not fields:
        return
    if not any(name in there or _sections(name) & _GIVEN_BY_USERS for name in fields):
        raise UserError(
            f"{what} of an earlier version of this program, which had no {' or '.join(fields)} "
            f"yet; choose another {folder}."
        )
    raise UserError(
        f"{what} of another config, which differs in {', '.join(fields.values())}; choose another "
        f"{folder}, or set the field back."
    )


def refuse_flat(place: str, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses a config of an earlier version, which had none of the sections of today.

    Raises:
      UserError: `there`, found at a place, has no section of `now`.
    """
    own = [n for n, v in now.items() if isinstance(v, dict) and n not in NAMED_BY_USERS]
    if own and not any(isinstance(there.get(name), dict) for name in own):
        raise UserError(
            f"{place} was written by an earlier version of this program, whose config had no "
            "sections; choose another folder."
        )


def changed_fields(there: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Name -> value in `there` of what `now` has otherwise, but for fields of the machine."""
    there, now = _leaves(there), _leaves(now)
    return {
        name: there.get(name)
        for name in sorted(set(there) | set(now))
        if there.get(name) != now.get(name) and not _sections(name) & _OF_THE_MACHINE
    }


def _sections(name: str) -> Set[str]:
    """The sections and the field in a name with dots, without what users have named."""
    first, *rest = name.split(".")
    return {first, *(rest[1:] if first in NAMED_BY_USERS else rest)}


def _why_length_matters(config: dict[str, Any]) -> str:
    """Why another number of steps is another training, given the leaves of a config, or ""."""
    optimizers = {v for n, v in config.items() if n.endswith("optimizer.name")}
    other = sorted(map(str, optimizers - _WITHOUT_END))
    if other:
        return f", on which every step of {other[0]} depends"
    second = [n for n, v in config.items() if v and n.endswith(("prior.num_steps", "refit.noise"))]
    if second or any(n.startswith("trained_with") for n in config):
        return ", on which a second training depends"
    return ""


def _adds_models(name: str, there: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a field, of the leaves of two configs, only names more to train beside the rest."""
    if now.get("together"):
        return False
    if name in ("seeds", "grid") and isinstance(there.get(name), list):
        return all(value in (now.get(name) or []) for value in there[name])
    of, _, model = name.partition(".")
    model = model.split(".")[0]
    return of == "models" and all(other.split(".")[:2] != [of, model] for other in there)


def _leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields made flat: their names joined by dots -> their values."""
    out = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            out |= _leaves(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out
