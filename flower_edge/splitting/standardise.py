"""`Standard`: how samples are standardised before the first layer; the cloud chooses, every device does the same.

    z-score     (x - mean) / std                 constants from `Moments`: of all devices' samples, none of which moved
    min-max     (x - low) / (high - low)         the same
    log         sign(x) log(1 + |x|)             no constants
    unit-norm   x / |x|, l1 or l2, per sample    no constants

It travels as plain values in a `WorkOrder`, and whoever uses the model afterwards applies the very same one.

Source: [3] 4.2 (the cloud determines the algorithm of standardisation, the edges apply it); the list is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..errors import DataError, SplitError
from .moments import Moments, Scope

__all__ = ["Standard", "StandardKind"]

StandardKind = Literal["z-score", "min-max", "log", "unit-norm"]
_FITTED: Final = ("z-score", "min-max")
_VERSION: Final = 1
#: Constants that may travel.
_MOST: Final = 1 << 16
_LARGEST: Final = 1e150


@dataclass(frozen=True)
class Standard:
    """A standardisation, with its constants if it needs any and has been fitted.

    Attributes:
        kind: see above.
        scope: what has constants of its own, of "z-score" and "min-max"; the others do not look at it.
        norm: "l1" or "l2", of "unit-norm".
        shift, scale: constants, x -> (x - shift) / scale; empty before `fitted`.
        shape: of the constants: of a sample ("feature"), (channels,) or ().

    >>> moments = Moments.of(np.array([[0.0, 5.0], [2.0, 5.0]]), "feature")
    >>> Standard("z-score", "feature").fitted(moments).apply(np.array([[4.0, 5.0]]))
    array([[3., 0.]], dtype=float32)
    """

    kind: StandardKind = "z-score"
    scope: Scope = "channel"
    norm: Literal["l1", "l2"] = "l2"
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, wherever it came from."""
        for name, known in (("kind", get_args(StandardKind)), ("scope", get_args(Scope)), ("norm", ("l1", "l2"))):
            if getattr(self, name) not in known:
                expected = ", ".join(map(repr, known))
                raise SplitError(f"standardisation: {name} = {getattr(self, name)!r}, expected one of {expected}")
        if self.kind not in _FITTED and (self.shift or self.scale or self.shape):
            raise SplitError(f"standardisation {self.kind!r} with constants, expected none")
        if not self.shift and not self.scale:
            return
        size = math.prod(self.shape)
        if not len(self.shift) == len(self.scale) == size or size > _MOST:
            raise SplitError(
                f"standardisation of shape {self.shape} with {len(self.shift)} shifts and {len(self.scale)} scales; "
                f"expected {size} of each, and at most {_MOST}"
            )
        for shift, scale in zip(self.shift, self.scale, strict=True):
            if not (abs(shift) <= _LARGEST and 0 < scale <= _LARGEST):
                raise SplitError(
                    f"standardisation with shift {shift} and scale {scale}; expected finite, scale above 0"
                )

    @property
    def needs_moments(self) -> bool:
        """Whether it has to be fitted, and has not been."""
        return self.kind in _FITTED and not self.scale

    @classmethod
    def fit(cls, kind: StandardKind, moments: Moments) -> Standard:
        """`Standard(kind, moments.scope).fitted(moments)`."""
        return cls(kind, moments.scope).fitted(moments)

    def moments(self, x: npt.NDArray[Any], *, least_samples: int = 1) -> Moments | None:
        """What a device tells of its samples for this; None where nothing is needed. See `Moments.of`."""
        return Moments.of(x, self.scope, least_samples=least_samples) if self.needs_moments else None

    def fitted(self, moments: Moments | None) -> Standard:
        """With constants of these moments. Where all samples have the same value, it becomes 0.

        Raises:
            DataError: moments of no samples, or of another scope.
        """
        if self.kind not in _FITTED:
            return self
        if moments is None or not moments.count or moments.scope != self.scope:
            came = "none" if moments is None or not moments.count else f"moments by {moments.scope}"
            raise DataError(
                f"standardisation {self.kind!r} by {self.scope}: {came}, expected moments by {self.scope} of at least "
                "one device; lower the number of samples below which devices tell none"
            )
        constant = moments.low == moments.high
        if self.kind == "z-score":
            shift, scale = moments.mean, moments.std
        else:
            shift, scale = moments.low, moments.high - moments.low
        scale = np.where(constant | ~(scale > 0), 1.0, scale)
        return replace(
            self,
            shift=tuple(np.where(constant, moments.low, shift).ravel().tolist()),
            scale=tuple(scale.ravel().tolist()),
            shape=tuple(moments.mean.shape),
        )

    def apply(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Samples [samples, ...], standardised in double precision, as float32; `x` is left as it is.

        Of "min-max", values beyond those that were there when it was fitted leave 0 to 1.

        Raises:
            DataError: not fitted, samples of another shape, or what comes out is no finite float32.
        """
        samples = np.asarray(x)
        if samples.ndim < 1 or samples.dtype.kind not in "fiub":
            raise DataError(
                f"samples of shape {samples.shape} and dtype {samples.dtype}: expected numbers, [samples, ...]"
            )
        values = samples.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.kind == "log":
                out = np.copysign(np.log1p(np.abs(values)), values)
            elif self.kind == "unit-norm":
                out = values / self._norms(values)
            else:
                shift, scale = self._constants(values)
                out = (values - shift) / scale
            found = out.astype(np.float32)
        if not np.isfinite(found).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
            raise DataError(
                f"sample {place[0]}, feature {place[1:]}: {values[place]} becomes {found[place]} by {self.kind!r}; "
                "fill in or drop what is missing, or fit on data like these"
            )
        return found

    def invert(self, standardised: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """What `apply` made these of, as float64; to float32's digits.

        Raises:
            SplitError: of "unit-norm", which keeps no length.
            DataError: not fitted, or samples of another shape.
        """
        values = np.asarray(standardised).astype(np.float64)
        if self.kind == "log":
            return np.asarray(np.copysign(np.expm1(np.abs(values)), values))
        if self.kind == "unit-norm":
            raise SplitError("standardisation 'unit-norm' has no inverse: the length of a sample is gone")
        shift, scale = self._constants(values)
        return np.asarray(values * scale + shift)

    def config(self) -> dict[str, Any]:
        """JSON values; `from_config` is its inverse, bit for bit."""
        plain: dict[str, Any] = {"version": _VERSION, "kind": self.kind, "scope": self.scope, "norm": self.norm}
        if self.scale:
            plain |= {"shift": list(self.shift), "scale": list(self.scale), "shape": list(self.shape)}
        return plain

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Standard:
        """Inverse of `config`.

        Raises:
            SplitError: not one of these.
        """
        options = dict(config)
        if (version := options.pop("version", _VERSION)) != _VERSION:
            raise SplitError(
                f"standardisation of version {version!r}, this side reads {_VERSION}; "
                "install the same flower-edge version on both sides"
            )
        if unknown := set(options) - {"kind", "scope", "norm", "shift", "scale", "shape"}:
            raise SplitError(f"standardisation with {', '.join(sorted(map(repr, unknown)))}, which it does not have")
        for name, types in (("shift", (int, float)), ("scale", (int, float)), ("shape", (int,))):
            values = options.get(name, ())
            fits = isinstance(values, list | tuple) and len(values) <= _MOST and all(type(v) in types for v in values)
            if not fits:
                raise SplitError(f"standardisation: {name} = {repr(values)[:80]}, expected a list of numbers")
            options[name] = tuple(values)
        try:
            return cls(**options)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, SplitError):
                raise
            raise SplitError(f"standardisation {str(options)[:120]} cannot be built: {error}") from None

    def _constants(self, values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        if self.needs_moments:
            raise DataError(f"standardisation {self.kind!r} has not been fitted; use standard.fitted(moments)")
        if values.ndim < 1 or (self.scope != "whole" and values.shape[1 : 1 + len(self.shape)] != self.shape):
            raise DataError(
                f"samples of shape {values.shape[1:]} for a standardisation by {self.scope} of shape {self.shape}; "
                "expected samples like those it was fitted on"
            )
        if self.scope == "feature" and values.ndim != 1 + len(self.shape):
            raise DataError(f"samples of shape {values.shape[1:]}, expected {self.shape}")
        wide = self.shape + (1,) * (values.ndim - 1 - len(self.shape)) if self.scope == "channel" else self.shape
        return np.array(self.shift).reshape(wide), np.array(self.scale).reshape(wide)

    def _norms(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of each sample, to divide by; of one that is all zeros 1."""
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        largest = np.abs(flat).max(axis=1, initial=0.0, keepdims=True)
        unit = flat / np.where(largest > 0, largest, 1.0)  # squares of the largest doubles would not be finite
        sums = np.abs(unit).sum(axis=1) if self.norm == "l1" else np.sqrt(np.square(unit).sum(axis=1))
        norms = sums * largest[:, 0]
        return np.where(norms > 0, norms, 1.0).reshape(len(values), *(1,) * (values.ndim - 1))
