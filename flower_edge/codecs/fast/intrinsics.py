"""What Numba has no word for: the bits of a float32 without a detour through memory, and a hint to fetch memory."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["as_bits", "as_float", "will_read", "will_write"]


def _as_bits(typing: Any, x: Any) -> Any:
    def generated(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.bitcast(given[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generated


def _as_float(typing: Any, x: Any) -> Any:
    def generated(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.bitcast(given[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generated


def _hint(written: int) -> Any:
    def hint(typing: Any, address: Any) -> Any:
        def generated(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
            form = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
            fetch = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), form)
            builder.call(fetch, [builder.inttoptr(given[0], pointer), number(written), number(3), number(1)])
            return context.get_dummy_value()

        return types.void(types.intp), generated

    return hint


#: uint32 with the bits of a float32.
as_bits: Any = intrinsic(_as_bits)
#: float32 with the bits of a uint32.
as_float: Any = intrinsic(_as_float)
#: Hints that the line of cache at an address will be read, or written. They touch nothing, and may point anywhere.
will_read: Any = intrinsic(_hint(0))
will_write: Any = intrinsic(_hint(1))
