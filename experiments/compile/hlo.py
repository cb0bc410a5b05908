"""The text of a compiled program: messages between devices, and traffic by the kind of memory.

XLA's own count of bytes adds what stays in the small memory on the chip to what the large one must
deliver, and charges a few rows taken out of a data set with all of it. Here the two are told apart,
and what is sliced or gathered counts with what is taken. The body of a loop counts once.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_LINE = re.compile(r"^  (ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*?)\)(, .*)?$")
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
}  # fmt: skip
_TAKES = {"dynamic-slice", "gather", "slice"}


class Instruction(NamedTuple):
    """A line; `operands` are names, `more` is what follows them."""

    name: str
    shape: str
    kind: str
    operands: tuple[str, ...]
    more: str


class Computation(NamedTuple):
    """Instructions by their names, and the name of the last."""

    instructions: dict[str, Instruction]
    root: str


class Program(NamedTuple):
    """Computations by their names, and the name of that where it starts."""

    computations: dict[str, Computation]
    entry: str


class Traffic(NamedTuple):
    """Bytes read and written: in the memory of the device, and in that on the chip."""

    memory: int
    on_chip: int


def parse(text: str) -> Program:
    """The program of `jax.stages.Compiled.as_text`."""
    found: dict[str, Computation] = {}
    entry, name = "", ""
    for line in text.splitlines():
        if line.endswith("{") and "->" in line and not line.startswith(" "):
            words = line.split()
            name = words[words[0] == "ENTRY"].lstrip("%")
            entry = name if words[0] == "ENTRY" else entry
            found[name] = Computation({}, "")
        elif name and (match := _LINE.match(line)):
            root, own, shape, kind, operands, more = match.groups()
            names = tuple(re.findall(r"%([\w.\-]+)", operands)) or tuple(operands.split(", "))
            found[name].instructions[own] = Instruction(own, shape, kind, names, more or "")
            if root:
                found[name] = found[name]._replace(root=own)
    return Program(found, entry)


def messages(program: Program) -> dict[str, tuple[int, int]]:
    """Messages between devices.

    Returns:
      kind -> (how many instructions, bytes of what a device has after them). An instruction that
      reduces several arrays at once is one.
    """
    count, size = Counter(), Counter()
    for computation in program.computations.values():
        for i in computation.instructions.values():
            kind = i.kind.removesuffix("-start")
            if kind not in KINDS:
                continue
            parts = [_size(*found[:2]) for found in _ARRAY.findall(i.shape)]
            # What starts an asynchronous message but a reduction gives (input, output, ...).
            pairs = kind != i.kind and kind != "all-reduce"
            size[kind] += parts[1] if pairs else sum(parts)
            count[kind] += 1
    return {kind: (count[kind], size[kind]) for kind in count}


def traffic(program: Program, *, in_loop: bool) -> Traffic:
    """Bytes that instructions read and write.

    Args:
      program: of `parse`.
      in_loop: whether only the body of its longest loop counts, as the step of a training does;
        all of a program without one.
    """
    start = program.computations[program.entry]
    loops = [*_loops(program, start)]
    if in_loop and loops:
        start = max(loops, key=lambda c: len(c.instructions))
    return Traffic(*_traffic(program, start))


def _loops(program: Program, computation: Computation) -> Iterator[Computation]:
    """Bodies of the loops of a computation, and of those that it calls; none of loops in loops."""
    for i in computation.instructions.values():
        if i.kind == "while":
            yield program.computations[_called(i, "body")]
        elif i.kind == "call":
            yield from _loops(program, program.computations[_called(i, "to_apply")])


def _traffic(program: Program, computation: Computation) -> tuple[int, int]:
    total = {False: 0, True: 0}
    for i in computation.instructions.values():
        if i.kind in ("while", "call", "conditional"):
            for name in _called(i, "body"), _called(i, "to_apply"), *_branches(i):
                inner = program.computations.get(name)
                memory, on_chip = _traffic(program, inner) if inner else (0, 0)
                total[False] += memory
                total[True] += on_chip
        if i.kind in _FREE or i.kind == "while" or i.kind.endswith("-done"):
            continue
        for position, name in enumerate(i.operands):
            operand = computation.instructions.get(name)
            if operand is not None and not operand.shape.startswith("("):
                size = min(_bytes(operand.shape), _taken(program, computation, i, position))
                total[_on_chip(operand.shape)] += size
        arrays = _ARRAY.findall(i.shape)
        if i.kind.endswith("-start"):  # (output, input, ...)
            arrays = arrays[:1]
        written = _written(program, computation, i)
        for dtype, dims, layout in arrays:
            size = _size(dtype, dims)
            total[_on_chip(layout)] += min(size, written) if len(arrays) == 1 else size
    return total[False], total[True]


def _taken(program: Program, inside: Computation, user: Instruction, position: int) -> int:
    """Bytes of an operand that an instruction reads at most."""
    everything = _bytes(inside.instructions[user.operands[position]].shape)
    if user.kind in _TAKES and position == 0:
        return _bytes(user.shape)
    if user.kind == "dynamic-update-slice" and position == 0:
        return 0  # the rest stays where it is
    fused = program.computations.get(_called(user, "calls"))
    if user.kind != "fusion" or fused is None:
        return everything
    for own in fused.instructions.values():
        if own.kind == "parameter" and own.operands == (str(position),):
            return min(everything, _of_all_users(program, fused, own.name))
    return everything


def _of_all_users(program: Program, inside: Computation, name: str) -> int:
    total = 0
    for user in inside.instructions.values():
        for position, operand in enumerate(user.operands):
            if operand != name:
                continue
            if user.kind == "bitcast":
                total += _of_all_users(program, inside, user.name)
            else:
                total += _taken(program, inside, user, position)
    return total


def _written(program: Program, inside: Computation, i: Instruction) -> int:
    """Bytes of its output that an instruction writes at most."""
    if i.kind == "dynamic-update-slice":
        return _bytes(inside.instructions[i.operands[1]].shape)
    if i.kind == "bitcast":
        source = inside.instructions.get(i.operands[0])
        return _written(program, inside, source) if source else _bytes(i.shape)
    fused = program.computations.get(_called(i, "calls"))
    if i.kind == "fusion" and fused is not None and fused.root:
        return _written(program, fused, fused.instructions[fused.root])
    return _bytes(i.shape)


def _called(i: Instruction, name: str) -> str:
    found = re.search(rf"\b{name}=%?([\w.\-]+)", i.more)
    return found[1] if found else ""


def _branches(i: Instruction) -> list[str]:
    found = re.search(r"branch_computations=\{([^}]*)\}", i.more)
    return [name.strip().lstrip("%") for name in found[1].split(",")] if found else []


def _on_chip(layout: str) -> bool:
    return "S(1)" in layout


def _bytes(shape: str) -> int:
    return sum(_size(*found[:2]) for found in _ARRAY.findall(shape))


def _size(dtype: str, dims: str) -> int:
    digits = re.search(r"\d+", dtype)
    bits = 8 if dtype == "pred" or digits is None else int(digits[0])
    return math.prod(int(n) for n in dims.split(",") if n) * bits // 8
