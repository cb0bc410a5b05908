"""The one exception that means: the user can mend this."""

from typing import Any


class UserError(Exception):
    """A mistake in what the user gave; its message is one sentence that says what to do."""


def another_program(field: str) -> str:
    """What to say of a config that lacks a field its program cannot do without."""
    return (
        f"the config given by --config is of another program: it lacks {field!r}; "
        "the first lines of each file in configs/ name the program it is for."
    )


# Where data and runs lie, and how much is in memory at once: they change from machine to machine,
# and no number but its last digit; a run is known by its checkpoint's checksum. `order` is that of
# a comparison, which collects its rows anew.
_OF_THE_MACHINE = {
    "data_dir", "images_per_pass", "samples_per_pass", "ais_images_per_pass", "chunk_elements",
    "posteriors_per_pass", "run", "order",
}  # fmt: skip


# What a training leaves on its way, and which results are set side by side.
OF_RECORDS = {"log_every", "save_every", "keep_checkpoints", "compare"}
# What is asked of a model when it is trained: another value makes other rows, not another model.
_OF_EVALUATION = {
    "test_images", "test_samples", "few_samples", "evaluation_images", "evaluation_samples",
    "evaluation_seed", "evaluation_draws", "evaluation_temperatures", "evaluation_times",
    "sample_grid", "captions",
}  # fmt: skip
# Optimisers whose steps are the same however many follow.
_WITHOUT_END = {"adam", "adam_warmup", "sgd", "paper", "released_code"}
# Fields of a second training, which goes on from where the first one ended.
_OF_A_SECOND = {"prior_steps", "refit_noise", "trained_with"}


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
    there, now = _leaves(there), _leaves(now)
    parts = []
    for name in sorted(set(there) | set(now)):
        last = name.split(".")[-1]
        if there.get(name) == now.get(name) or last in _OF_THE_MACHINE:
            continue
        why = ""
        if of_the_model:
            if last in OF_RECORDS | _OF_EVALUATION or _adds_models(name, there, now):
                continue
            why = _why_length_matters(now) if last == "num_steps" else ""
            if last == "num_steps" and not why:
                continue
        parts.append(f"{name} ({there.get(name)} there, {now.get(name)} now{why})")
    return ", ".join(parts)


def changed_fields(there: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Name -> value in `there` of what `now` has otherwise, but for fields of the machine."""
    there, now = _leaves(there), _leaves(now)
    return {
        name: there.get(name)
        for name in sorted(set(there) | set(now))
        if there.get(name) != now.get(name) and name.split(".")[-1] not in _OF_THE_MACHINE
    }


def _why_length_matters(config: dict[str, Any]) -> str:
    """Why another number of steps is another training, given the leaves of a config, or ""."""
    optimizers = {v for n, v in config.items() if n.split(".")[-1] == "optimizer"}
    other = sorted(map(str, optimizers - _WITHOUT_END))
    if other or not optimizers:
        return f", on which every step of {other[0] if other else 'a training'} depends"
    if any(v for n, v in config.items() if _OF_A_SECOND & set(n.split("."))):
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
    """Fields of fields by their names with dots between."""
    out = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            out |= _leaves(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out
