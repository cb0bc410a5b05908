"""The text of compiled programs: messages, and bytes by memory, loop and what is really taken."""

import jax
import jax.numpy as jnp
import pytest

from experiments.compile import hlo

MESSAGES = """
ENTRY %main (p: f32[4]) -> f32[] {
  %all-reduce.2 = f32[128,4]{1,0:T(8,128)S(1)} all-reduce(%fusion.16), channel_id=1
  %ar = (bf16[10]{0}, f32[]) all-reduce(%a, %b), channel_id=2
  %s = (f32[4]{0}, f32[32]{0}) all-gather-start(%p), dimensions={0}
  %d = f32[32]{0} all-gather-done(%s)
  %r = f32[6]{0} all-reduce-start(%p), to_apply=%add
  %x = (u32[2,2]{1,0}, pred[7]{0}) all-to-all(%p, %q)
  ROOT %get = f32[3]{0} get-tuple-element(%all-reduce.2), index=0
}
"""


def test_messages_are_counted_by_kind_with_the_bytes_of_their_results():
    assert hlo.messages(hlo.parse(MESSAGES)) == {
        "all-reduce": (3, 128 * 4 * 4 + (10 * 2 + 4) + 6 * 4),
        "all-gather": (1, 32 * 4),
        "all-to-all": (1, 2 * 2 * 4 + 7),
    }


STEP = """
%rows (param_0: u8[1000,16], param_1: s32[4]) -> u8[4,16] {
  %param_0 = u8[1000,16]{1,0} parameter(0)
  %param_1 = s32[4]{0:S(1)} parameter(1)
  ROOT %g = u8[4,16]{1,0:S(1)} gather(%param_0, %param_1), slice_sizes={1,16}
}

%body (p: (s32[4], u8[1000,16], f32[8,8], f32[8])) -> (s32[4], u8[1000,16], f32[8,8], f32[8]) {
  %p = (s32[4]{0:S(1)}, u8[1000,16]{1,0}, f32[8,8]{1,0}, f32[8]{0:S(1)}) parameter(0)
  %i = s32[4]{0:S(1)} get-tuple-element(%p), index=0
  %data = u8[1000,16]{1,0} get-tuple-element(%p), index=1
  %stack = f32[8,8]{1,0} get-tuple-element(%p), index=2
  %v = f32[8]{0:S(1)} get-tuple-element(%p), index=3
  %x = u8[4,16]{1,0:S(1)} fusion(%data, %i), kind=kLoop, calls=%rows
  %one = f32[1,8]{1,0} bitcast(%v)
  %zero = s32[] constant(0)
  %put = f32[8,8]{1,0} dynamic-update-slice(%stack, %one, %zero, %zero)
  ROOT %out = (s32[4]{0:S(1)}, u8[1000,16]{1,0}, f32[8,8]{1,0}, f32[8]{0:S(1)}) tuple(%i, %data, %put, %v)
}

%condition (p: (s32[4])) -> pred[] {
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %start = (f32[8]{0:S(1)}, f32[8]{0}, u32[]{:S(2)}) copy-start(%a)
  %done = f32[8]{0:S(1)} copy-done(%start)
  %w = (s32[4]{0:S(1)}, u8[1000,16]{1,0}, f32[8,8]{1,0}, f32[8]{0:S(1)}) while(%t), condition=%condition, body=%body
  ROOT %r = f32[8]{0:S(1)} get-tuple-element(%w), index=3
}
"""  # noqa: E501


def test_traffic_is_told_apart_by_memory_and_counts_what_is_taken():
    program = hlo.parse(STEP)
    # In memory: 4 rows of 16 bytes; a row of 8 floats read and put, and two indices of 4 bytes.
    # On the chip: 4 indices, and the rows that were taken.
    step = hlo.Traffic(64 + 32 + 32 + 8, 16 + 64)
    assert hlo.traffic(program, in_loop=True) == step
    # Around it an array of 8 floats is brought to the chip.
    assert hlo.traffic(program, in_loop=False) == (step.memory + 32, step.on_chip + 32)


@pytest.mark.parametrize("in_loop", [True, False])
def test_a_program_without_loops_counts_as_a_whole(in_loop):
    a, b = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 32), (32, 16)))
    program = hlo.parse(jax.jit(jnp.matmul).lower(a, b).compile().as_text())
    assert hlo.traffic(program, in_loop=in_loop) == (4 * (64 * 32 + 32 * 16 + 64 * 16), 0)


def test_a_compiled_loop_over_rows_reads_each_row():
    def sums(stack):
        return jax.lax.scan(lambda c, row: (c + jnp.sin(row), ()), stack[0], stack)[0]

    text = jax.jit(sums).lower(jax.ShapeDtypeStruct((500, 100), jnp.float32)).compile().as_text()
    found = hlo.traffic(hlo.parse(text), in_loop=True)
    assert 3 * 400 <= found.memory < 20 * 400  # not the 200,000 of the stack
