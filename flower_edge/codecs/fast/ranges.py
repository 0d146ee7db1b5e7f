"""What `reference/ranges.py` does, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ..reference.ranges import Bytes, Ints, ended, finish, start_reading

__all__ = ["ended", "finish", "read_flags", "read_spots", "start_reading", "write_flags", "write_spots"]

_TOP, _LEAST, _ONE = 1 << 40, 1 << 32, 1 << 31
_CHEAP = _ONE - (_ONE >> 5)
#: The digits of a run: 2^31 numbers are more than a vector has.
_MOST = 32


@njit(cache=True, nogil=True)
def _settle(out: Any, state: Any) -> bool:
    low, span, end = state[0], state[1], state[2]
    if low >= _TOP:
        low -= _TOP
        place = end - 1
        while place >= 0 and out[place] == 255:
            out[place] = 0
            place -= 1
        if place >= 0:
            out[place] += np.uint8(1)
    while span < _LEAST:
        if end >= out.size:
            state[1] = _LEAST
            return False
        out[end] = low >> 32
        end += 1
        low = (low & (_LEAST - 1)) << 8
        span <<= 8
    state[0], state[1], state[2] = low, span, end
    return True


@njit(cache=True, nogil=True)
def _write(out: Any, state: Any, bit: int, chance: int) -> bool:
    bound = (state[1] >> 16) * chance
    if bit:
        state[1] = bound
    else:
        state[0] += bound
        state[1] -= bound
    return _settle(out, state)


@njit(cache=True, nogil=True)
def _write_digits(out: Any, state: Any, value: int, count: int) -> bool:
    while count > 0:
        some = min(count, 16)
        count -= some
        state[1] >>= some
        state[0] += ((value >> count) & ((1 << some) - 1)) * state[1]
        if not _settle(out, state):
            return False
    return True


@njit(cache=True, nogil=True)
def _follow(data: Any, state: Any) -> None:
    while state[1] < _LEAST:
        byte = np.int64(data[state[2]]) if state[2] < data.size else np.int64(0)
        state[2] += 1
        state[0] = ((state[0] << 8) | byte) & (_TOP - 1)
        state[1] <<= 8


@njit(cache=True, nogil=True)
def _read(data: Any, state: Any, chance: int) -> int:
    bound = (state[1] >> 16) * chance
    if state[0] < bound:
        state[1] = bound
        _follow(data, state)
        return 1
    state[0] -= bound
    state[1] -= bound
    _follow(data, state)
    return 0


@njit(cache=True, nogil=True)
def _read_digits(data: Any, state: Any, count: int) -> int:
    value = 0
    while count > 0:
        some = min(count, 16)
        count -= some
        state[1] >>= some
        part = min(state[0] // state[1], (1 << some) - 1)
        state[0] -= part * state[1]
        value = (value << some) | part
        _follow(data, state)
    return value


@njit(cache=True, nogil=True)
def _powers(powers: Any, zeros: int, left: int) -> int:
    count, power = 0, zeros * _ONE // left
    while power > _ONE >> 1:
        powers[count] = power
        count += 1
        power = (power * power) >> 31
    powers[count] = power
    return count


@njit(cache=True, nogil=True)
def _chance(power: int) -> int:
    return min(max(power >> 15, 1), 65535)


@njit(cache=True, nogil=True)
def _digit_chance(power: int) -> int:
    return min(max((power << 16) // (_ONE + power), 1), 65535)


@njit(cache=True, nogil=True)
def _length(value: int) -> int:
    count = 0
    while value > 0:
        value >>= 1
        count += 1
    return count


@njit(cache=True, nogil=True)
def _write_run(out: Any, state: Any, powers: Any, run: int, zeros: int, left: int) -> bool:
    count = _powers(powers, zeros, left)
    size = 1 << count
    end = size
    while end <= zeros:
        if not _write(out, state, 1 if run >= end else 0, _chance(powers[count])):
            return False
        if run < end:
            break
        end += size
    for digit in range(count - 1, -1, -1):
        if powers[digit] > _CHEAP:
            return _write_digits(out, state, run & ((2 << digit) - 1), digit + 1)
        if not _write(out, state, (run >> digit) & 1, _digit_chance(powers[digit])):
            return False
    return True


@njit(cache=True, nogil=True)
def _read_run(data: Any, state: Any, powers: Any, zeros: int, left: int) -> int:
    count = _powers(powers, zeros, left)
    size = 1 << count
    run = 0
    while run + size <= zeros and _read(data, state, _chance(powers[count])):
        run += size
    for digit in range(count - 1, -1, -1):
        if powers[digit] > _CHEAP:
            return run + _read_digits(data, state, digit + 1)
        run += _read(data, state, _digit_chance(powers[digit])) << digit
    return run


@njit(cache=True, nogil=True)
def _write_spots(out: Any, state: Any, members: Any, ones: Any, spots: Any) -> bool:
    powers = np.zeros(_MOST + 1, np.int64)
    before = spots.size
    for group in range(members.size - 1):
        count = ones[group]
        if members[group] == 0:
            continue
        low = max(_length(before) - 1, 0)
        for _ in range(count >> low):
            if not _write(out, state, 1, 32768):
                return False
        if not _write(out, state, 0, 32768):
            return False
        if not _write_digits(out, state, count & ((1 << low) - 1), low):
            return False
        before = count
    done = 0
    for group in range(members.size):
        left, begin = members[group], 0
        for ones_left in range(ones[group], 0, -1):
            place = spots[done]
            zeros = left - ones_left
            if zeros > 0 and not _write_run(out, state, powers, place - begin, zeros, left):
                return False
            left -= place - begin + 1
            begin = place + 1
            done += 1
    return True


@njit(cache=True, nogil=True)
def _read_spots(data: Any, state: Any, members: Any, ones: Any, spots: Any) -> bool:
    powers = np.zeros(_MOST + 1, np.int64)
    rest, before, last = spots.size, spots.size, members.size - 1
    for group in range(last):
        if members[group] == 0:
            continue
        low = max(_length(before) - 1, 0)
        most, high = min(members[group], rest), 0
        while _read(data, state, 32768):
            high += 1
            if high << low > most:
                return False
        before = (high << low) | _read_digits(data, state, low)
        if before > most:
            return False
        ones[group] = before
        rest -= before
    if last >= 0:
        ones[last] = rest
    if rest > (members[last] if last >= 0 else 0):
        return False
    done = 0
    for group in range(members.size):
        left, begin = members[group], 0
        for ones_left in range(ones[group], 0, -1):
            zeros = left - ones_left
            run = _read_run(data, state, powers, zeros, left) if zeros > 0 else 0
            if run > zeros or done >= spots.size:
                return False
            spots[done] = begin + run
            begin += run + 1
            left -= run + 1
            done += 1
    return True


@njit(cache=True, nogil=True)
def _seen_chance(zeros: int, ones: int) -> int:
    return min(max(((2 * ones + 1) << 15) // (zeros + ones + 1), 1), 65535)


@njit(cache=True, nogil=True)
def _write_flags(out: Any, state: Any, flags: Any, contexts: Any) -> bool:
    seen = np.zeros((256, 2), np.int64)
    for i in range(flags.size):
        context, flag = contexts[i], 1 if flags[i] else 0
        if not _write(out, state, flag, _seen_chance(seen[context, 0], seen[context, 1])):
            return False
        seen[context, flag] += 1
    return True


@njit(cache=True, nogil=True)
def _read_flags(data: Any, state: Any, contexts: Any, flags: Any) -> None:
    seen = np.zeros((256, 2), np.int64)
    for i in range(flags.size):
        context = contexts[i]
        flag = _read(data, state, _seen_chance(seen[context, 0], seen[context, 1]))
        seen[context, flag] += 1
        flags[i] = flag


def write_spots(out: Bytes, state: Ints, members: Ints, ones: Ints, spots: Ints) -> bool:
    """See `reference.ranges.write_spots`."""
    return bool(_write_spots(out, state, members, ones, spots))


def read_spots(data: Bytes, state: Ints, members: Ints, count: int) -> tuple[Ints, Ints] | None:
    """See `reference.ranges.read_spots`."""
    ones, spots = np.zeros(len(members), np.int64), np.empty(count, np.int64)
    return (ones, spots) if _read_spots(data, state, members, ones, spots) else None


def write_flags(out: Bytes, state: Ints, flags: Bytes, contexts: Bytes) -> bool:
    """See `reference.ranges.write_flags`."""
    return bool(_write_flags(out, state, flags, contexts))


def read_flags(data: Bytes, state: Ints, contexts: Bytes) -> Bytes:
    """See `reference.ranges.read_flags`."""
    flags = np.empty(contexts.size, np.uint8)
    _read_flags(data, state, contexts, flags)
    return flags
