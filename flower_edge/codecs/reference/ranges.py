"""A binary range coder in whole numbers: places of ones among many zeros, and single flags, near their entropy.

    low, span   what is still possible: [low, low + span) of 2^40; span stays above 2^32
    chance      probability of a 1 in 65,536ths, 1 to 65,535

Carries go back into bytes already written (Martin, "Range encoding", 1979). A run of zeros before a one is geometric:
its binary digits are independent of each other, so that a run costs a few symbols however long it is. Nothing here is
floating point, so every machine reads what any machine wrote. Whatever bytes come in, reading ends.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "Bytes",
    "Ints",
    "ended",
    "finish",
    "read_flags",
    "read_spots",
    "start_reading",
    "write_flags",
    "write_spots",
]

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_TOP, _LEAST = 1 << 40, 1 << 32
_ONE = 1 << 31
#: Digits of a run with a chance this near to one half are written as they are: that costs them 0.005 % of a bit.
CHEAP = _ONE - (_ONE >> 5)


class _Writer:
    """Appends to `out` as long as there is room."""

    def __init__(self, out: Bytes, state: Ints) -> None:
        self.out, self.state = out, state
        self.low, self.span, self.end = map(int, state)
        self.full = False

    def bit(self, bit: int, chance: int) -> None:
        bound = (self.span >> 16) * chance
        if bit:
            self.span = bound
        else:
            self.low += bound
            self.span -= bound
        self._settle()

    def digits(self, value: int, count: int) -> None:
        while count > 0:
            some = min(count, 16)
            count -= some
            self.span >>= some
            self.low += (value >> count & (1 << some) - 1) * self.span
            self._settle()

    def _settle(self) -> None:
        if self.low >= _TOP:
            self.low -= _TOP
            _carry(self.out, self.end)
        while self.span < _LEAST:
            if self.end >= self.out.size:
                self.full = True
                self.span = _LEAST
                return
            self.out[self.end] = self.low >> 32
            self.end += 1
            self.low = (self.low & _LEAST - 1) << 8
            self.span <<= 8

    def close(self) -> bool:
        self.state[:] = self.low, self.span, self.end
        return not self.full


class _Reader:
    """Reads zeros where the bytes have ended."""

    def __init__(self, data: Bytes, state: Ints) -> None:
        self.data, self.state = data, state
        self.code, self.span, self.at = map(int, state)

    def bit(self, chance: int) -> int:
        bound = (self.span >> 16) * chance
        bit = int(self.code < bound)
        if bit:
            self.span = bound
        else:
            self.code -= bound
            self.span -= bound
        self._settle()
        return bit

    def digits(self, count: int) -> int:
        value = 0
        while count > 0:
            some = min(count, 16)
            count -= some
            self.span >>= some
            part = min(self.code // self.span, (1 << some) - 1)
            self.code -= part * self.span
            value = value << some | part
            self._settle()
        return value

    def _settle(self) -> None:
        while self.span < _LEAST:
            byte = int(self.data[self.at]) if self.at < self.data.size else 0
            self.at += 1
            # Below 2^40 even where a forged payload left the code beyond the span.
            self.code = (self.code << 8 | byte) & _TOP - 1
            self.span <<= 8

    def close(self) -> None:
        self.state[:] = self.code, self.span, self.at


def _carry(out: Bytes, end: int) -> None:
    place = end - 1
    while place >= 0 and out[place] == 255:
        out[place] = 0
        place -= 1
    if place >= 0:
        out[place] += 1


def _powers(zeros: int, left: int) -> tuple[list[int], int]:
    """r, r^2, r^4, ... down to one half, of r = zeros / left in 2^-31; and what comes after the last."""
    power, powers = zeros * _ONE // left, []
    while power > _ONE >> 1:
        powers.append(power)
        power = power * power >> 31
    return powers, power


def _chance(power: int) -> int:
    return min(max(power >> 15, 1), 65535)


def _digit_chance(power: int) -> int:
    return min(max((power << 16) // (_ONE + power), 1), 65535)


def write_spots(out: Bytes, state: Ints, members: Ints, ones: Ints, spots: Ints) -> bool:
    """Which of the members of each group are ones.

    Args:
        out: where to write; state: low, span and end, changed.
        members: how many each group has, [groups].
        ones: how many of them are ones, [groups].
        spots: their places within their group, increasing, one group after the other, [ones.sum()].

    Returns:
        False: `out` is full, and what it holds is of no use.
    """
    writer = _Writer(out, state)
    rest = before = int(ones.sum())
    for group in range(len(members) - 1):
        count = int(ones[group])
        if not members[group]:
            continue
        low = max(before.bit_length() - 1, 0)
        for _ in range(count >> low):
            writer.bit(1, 32768)
        writer.bit(0, 32768)
        writer.digits(count & (1 << low) - 1, low)
        before, rest = count, rest - count
    done = 0
    for group in range(len(members)):
        left, ones_left, begin = int(members[group]), int(ones[group]), 0
        for place in spots[done : done + ones_left].tolist():
            zeros = left - ones_left
            if zeros > 0:
                _write_run(writer, place - begin, zeros, left)
            left -= place - begin + 1
            begin, ones_left = place + 1, ones_left - 1
            if writer.full:
                return False
        done += int(ones[group])
    return writer.close()


def _write_run(writer: _Writer, run: int, zeros: int, left: int) -> None:
    powers, last = _powers(zeros, left)
    size = 1 << len(powers)
    end = size
    while end <= zeros:
        writer.bit(int(run >= end), _chance(last))
        if run < end:
            break
        end += size
    for digit in range(len(powers) - 1, -1, -1):
        if powers[digit] > CHEAP:
            writer.digits(run & (2 << digit) - 1, digit + 1)
            break
        writer.bit(run >> digit & 1, _digit_chance(powers[digit]))


def read_spots(data: Bytes, state: Ints, members: Ints, count: int) -> tuple[Ints, Ints] | None:
    """Inverse of `write_spots`: `ones` and `spots`, `count` in all; `None` where the bytes are none of its."""
    reader = _Reader(data, state)
    ones, spots = np.zeros(len(members), np.int64), np.empty(count, np.int64)
    rest = before = count
    for group in range(len(members) - 1):
        if not members[group]:
            continue
        low = max(before.bit_length() - 1, 0)
        most, high = min(int(members[group]), rest), 0
        while reader.bit(32768):
            high += 1
            if high << low > most:
                return None
        before = high << low | reader.digits(low)
        if before > most:
            return None
        ones[group] = before
        rest -= before
    if len(members):
        ones[-1] = rest
    if rest > (int(members[-1]) if len(members) else 0):
        return None
    done = 0
    for group in range(len(members)):
        left, begin = int(members[group]), 0
        for ones_left in range(int(ones[group]), 0, -1):
            run = _read_run(reader, left - ones_left, left) if left > ones_left else 0
            if run > left - ones_left:
                return None
            spots[done] = begin + run
            done, begin, left = done + 1, begin + run + 1, left - run - 1
    reader.close()
    return ones, spots


def _read_run(reader: _Reader, zeros: int, left: int) -> int:
    powers, last = _powers(zeros, left)
    size = 1 << len(powers)
    run = 0
    while run + size <= zeros and reader.bit(_chance(last)):
        run += size
    for digit in range(len(powers) - 1, -1, -1):
        if powers[digit] > CHEAP:
            return run + reader.digits(digit + 1)
        run += reader.bit(_digit_chance(powers[digit])) << digit
    return run


def write_flags(out: Bytes, state: Ints, flags: Bytes, contexts: Bytes) -> bool:
    """Zeros and ones, [n], by how often a one came in the same context before: (ones + 1/2) / (all + 1), Krichevsky
    and Trofimov, "The performance of universal encoding", IEEE Trans. IT 27(2), 1981."""
    writer = _Writer(out, state)
    seen = [[0, 0] for _ in range(256)]
    for flag, context in zip(flags.tolist(), contexts.tolist(), strict=True):
        zeros, ones = seen[context]
        writer.bit(flag, _seen_chance(zeros, ones))
        seen[context][flag] += 1
        if writer.full:
            return False
    return writer.close()


def read_flags(data: Bytes, state: Ints, contexts: Bytes) -> Bytes:
    """Inverse of `write_flags`."""
    reader = _Reader(data, state)
    seen = [[0, 0] for _ in range(256)]
    flags = np.empty(contexts.size, np.uint8)
    for i, context in enumerate(contexts.tolist()):
        zeros, ones = seen[context]
        flags[i] = flag = reader.bit(_seen_chance(zeros, ones))
        seen[context][flag] += 1
    reader.close()
    return flags


def _seen_chance(zeros: int, ones: int) -> int:
    return min(max((2 * ones + 1 << 15) // (zeros + ones + 1), 1), 65535)


def finish(out: Bytes, state: Ints) -> int:
    """As few last bytes as tell the end; how many there are in all, or -1 where `out` is full. The last is not zero."""
    low, span, end = map(int, state)
    value = _shortest(low, span)
    if value >= _TOP:
        value -= _TOP
        _carry(out, end)
    while value:
        if end >= out.size:
            return -1
        out[end] = value >> 32
        end, value = end + 1, (value & _LEAST - 1) << 8
    while end and out[end - 1] == 0:
        end -= 1
    return end


def start_reading(data: Bytes) -> Ints:
    """The state before the first symbol: code, span, and which byte is next."""
    return np.array([_window(data, 0), _TOP, 5], np.int64)


def ended(data: Bytes, state: Ints) -> bool:
    """Whether these are the bytes that `finish` would have ended with after the symbols that were read, and no more."""
    code, span, at = map(int, state)
    window = _window(data, at - 5)
    shortest = _shortest(window - code & _TOP - 1, span) & _TOP - 1
    return data.size <= at and shortest == window and not (data.size and data[-1] == 0)


def _shortest(low: int, span: int) -> int:
    """The number in [low, low + span) of which the most low bytes are zero."""
    for zeros in range(40, 0, -8):
        value = -(-low >> zeros) << zeros
        if value < low + span:
            return value
    return low


def _window(data: Bytes, begin: int) -> int:
    """Five bytes, zeros where there are no more."""
    some = bytes(data[begin : begin + 5])
    return int.from_bytes(some.ljust(5, b"\0"), "big")
