"""`Pipeline`: a model on several machines, each with its own part of it and nothing else. Built by `distribute`.

`run` takes an input through all parts in this process, and through what their connections make of tensors; serving
processes run the same parts and the same wires. Nothing here compresses, trains or sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import fx, nn

from ..errors import FringeError, SplitError
from ..models.matching import check_arrays
from ..models.train_torch import set_arrays
from ..splitting.cutting_torch import CutModel
from ..splitting.recording_torch import left_as_found, same
from ..splitting.tensors_torch import row_major
from .parts_torch import Part, copied, evaluating, make_part, outputs_of, position_of, specs_of
from .wire import Wire
from .wire_forms import WireForm
from .wire_torch import carried

__all__ = ["Connection", "Part", "Pipeline", "distribute"]

Array = npt.NDArray[Any]


class Connection(NamedTuple):
    """Between two neighbouring parts."""

    number: int
    producer: str
    consumer: str
    wire: Wire

    @property
    def size_bytes(self) -> int:
        """Of one inference: W of Eq. 1 before it is compressed, P after."""
        return self.wire.size_bytes()


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Parts on machines, and the connections between them.

    Attributes:
        parts: in the order they run.
        wires: of the connections, one fewer.
        example: an input with a batch of 2 or more.
        version: counts changes; 0 is the model as it was given.
        digest: of the cut model, see `CutModel.digest`.
        unused: arrays of the model that no step reads, so that no machine holds them.
    """

    parts: tuple[Part, ...]
    wires: tuple[Wire, ...] = field(repr=False)
    example: torch.Tensor = field(repr=False)
    version: int = 0
    digest: str = ""
    unused: tuple[str, ...] = field(default=(), repr=False)

    @property
    def machines(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(part.machine for part in self.parts)

    @property
    def connections(self) -> tuple[Connection, ...]:
        """All of them, from the first machine on."""
        return tuple(
            Connection(number, before.machine, after.machine, wire)
            for number, ((before, after), wire) in enumerate(zip(pairwise(self.parts), self.wires, strict=True))
        )

    def part(self, machine: str) -> Part:
        """The part of a machine.

        Raises:
            FringeError: no such machine.
        """
        for part in self.parts:
            if part.machine == machine:
                return part
        raise FringeError(f"machine {machine!r}: expected one of {', '.join(self.machines)}")

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers of all parts by the model's names; not copies."""
        found: dict[str, torch.Tensor] = {}
        for part in self.parts:
            found |= dict(part.module.named_parameters(remove_duplicate=False))
            found |= dict(part.module.named_buffers(remove_duplicate=False))
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Output of an input [batch, ...], with gradients; where a wire rounds, they pass straight through.

        Raises:
            FringeError: an input of another shape or dtype than the example's.
        """
        self._check_input(x)
        tensors: tuple[torch.Tensor, ...] = (row_major(x),)
        for part, wire in zip(self.parts, (*self.wires, None), strict=True):
            tensors = part.module(*tensors)
            if wire is not None:
                tensors = carried(wire, tensors)
        return tensors[0]

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Output of an input [batch, ...] in evaluation, as the machines together would give it.

        Raises:
            FringeError: an input of another shape or dtype than the example's.
        """
        with torch.no_grad(), evaluating(*(part.module for part in self.parts)):
            return self.forward(x)

    def crossing(self, x: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], ...]:
        """What the producer of each connection hands to its wire, in evaluation.

        Raises:
            FringeError: an input of another shape or dtype than the example's.
        """
        self._check_input(x)
        found = []
        with torch.no_grad(), evaluating(*(part.module for part in self.parts)):
            tensors: tuple[torch.Tensor, ...] = (row_major(x),)
            for part, wire in zip(self.parts, self.wires, strict=False):
                tensors = part.module(*tensors)
                found.append(tensors)
                tensors = carried(wire, tensors)
        return tuple(found)

    def formed(self, forms: Mapping[int, WireForm | Sequence[WireForm]]) -> Pipeline:
        """The same parts with other wire forms at some connections, by number; a version on.

        Raises:
            FringeError: no such connection, or a form that does not go with its tensors.
        """
        wires = list(self.wires)
        for number, form in forms.items():
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(wires):
                raise FringeError(f"connection {number!r}: expected 0 to {len(wires) - 1}")
            wires[number] = wires[number].formed(form)
        return replace(self, wires=tuple(wires), version=self.version + 1)

    def with_modules(
        self, modules: Mapping[str, fx.GraphModule], forms: Mapping[int, WireForm | Sequence[WireForm]] | None = None
    ) -> Pipeline:
        """Other modules on some machines, a version on. What crosses is found by running the example.

        A form stays at its connection unless `forms` has another.

        Args:
            modules: by machine; the pipeline keeps them, not copies.
            forms: by number of a connection.

        Raises:
            FringeError: no such machine, modules that do not fit together, or a form that no longer fits its tensors.
        """
        for machine in modules:
            self.part(machine)
        parts = tuple(replace(part, module=modules.get(part.machine, part.module)) for part in self.parts)
        specs = specs_of(parts, self.example)
        wires = tuple(
            Wire.plain(found, number).formed((forms or {}).get(number, wire.forms))
            for number, (found, wire) in enumerate(zip(specs, self.wires, strict=True))
        )
        return replace(self, parts=parts, wires=wires, version=self.version + 1)

    def _check_input(self, x: torch.Tensor) -> None:
        """A model's own error names no shape that was expected, and NumPy arrays fail deep inside it."""
        expected = f"[batch, {', '.join(map(str, self.example.shape[1:]))}] of {self.example.dtype}"
        if not isinstance(x, torch.Tensor):
            raise FringeError(f"an input of type {type(x).__name__}, expected a tensor {expected}")
        if x.dim() != self.example.dim() or x.shape[1:] != self.example.shape[1:] or x.dtype != self.example.dtype:
            raise FringeError(f"an input of shape {tuple(x.shape)} and {x.dtype}, expected {expected}")

    def copied(self) -> Pipeline:
        """The same with parts of its own."""
        return replace(self, parts=tuple(replace(part, module=copied(part.module)) for part in self.parts))

    def state(self) -> dict[str, Any]:
        """All arrays, forms and the version, as nested plain values and NumPy arrays; `with_state` takes it back."""
        return {
            "version": self.version,
            "digest": self.digest,
            "parts": {part.machine: part.arrays() for part in self.parts},
            "wires": [wire.config() for wire in self.wires],
        }

    def with_state(self, state: Mapping[str, Any]) -> Pipeline:
        """A pipeline with parts of its own that hold that state.

        Raises:
            FringeError: state of another model, of other machines, or of parts that send other tensors.
            ModelMismatch: arrays of other names or shapes.
        """
        keys = {"version": int, "digest": str, "parts": Mapping, "wires": list}
        if not isinstance(state, Mapping) or not all(isinstance(state.get(key), kind) for key, kind in keys.items()):
            raise FringeError(f"state of {str(state)[:120]}; expected what Pipeline.state gives: {', '.join(keys)}")
        if state["digest"] != self.digest or set(state["parts"]) != set(self.machines):
            raise FringeError(
                f"state of model {str(state['digest'])[:12]!r} on {', '.join(state['parts']) or 'nothing'}; "
                f"expected {self.digest[:12]!r} on {', '.join(self.machines)}"
            )
        wires = tuple(Wire.from_config(config) for config in state["wires"])
        if [wire.specs for wire in wires] != [wire.specs for wire in self.wires]:
            raise FringeError("state of parts that send other tensors; apply the same compression first, then load it")
        new = replace(self.copied(), wires=wires, version=int(state["version"]))
        for part in new.parts:
            arrays = state["parts"][part.machine]
            shapes = {name: tuple(tensor.shape) for name, tensor in part.module.state_dict().items()}
            check_arrays(arrays, shapes, f"part of machine {part.machine!r}")
            set_arrays(part.module, arrays)
        return new


def distribute(
    model: CutModel | nn.Module,
    example: torch.Tensor,
    machines: Sequence[str],
    cuts: Sequence[int | str],
    *,
    blocks: Sequence[str] = (),
    max_tensors: int = 3,
) -> Pipeline:
    """Cut a model over machines. Each gets copies of its own arrays; the model stays as it was.

    Args:
        model: one tensor in, one tensor out.
        example: [batch, ...] with a batch of 2 or more.
        machines: names, in the order the parts run; one or more.
        cuts: one fewer, rising: positions of `CutModel`, names of its units, or of modules to cut after.
        blocks, max_tensors: as for `CutModel.of`, where the model is not cut yet.

    Returns:
        Its parts in evaluation.

    Raises:
        SplitError: a model that cannot be cut there, as of tied weights, or parts that compute something else.
        FringeError: machines and cuts that do not go together, or a tensor that no connection carries.
    """
    if isinstance(machines, str) or not machines or len(set(machines)) != len(machines) or "" in machines:
        raise FringeError(f"machines = {machines!r}: expected names, none twice, such as ['camera', 'gateway']")
    if len(cuts) != len(machines) - 1:
        raise FringeError(f"{len(cuts)} cuts for {len(machines)} machines; expected {len(machines) - 1}")
    cut_model = (
        model if isinstance(model, CutModel) else CutModel.of(model, example, blocks=blocks, max_tensors=max_tensors)
    )
    positions = [position_of(cut_model, cut) for cut in cuts]
    ends = (0, *positions, len(cut_model.units))
    if any(after <= before for before, after in pairwise(ends)):
        raise FringeError(
            f"cuts = {list(cuts)} at positions {positions}: expected rising ones, so that each has a unit"
        )
    made: list[Part] = []
    example = row_major(example)
    tensors: tuple[torch.Tensor, ...] = (example,)
    for machine, (start, stop) in zip(machines, pairwise(ends), strict=True):
        part = Part(machine, make_part(cut_model, start, stop, tensors), cut_model.units[start:stop])
        with torch.no_grad():
            tensors = outputs_of(part, tensors)
        made.append(part)
    parts = tuple(made)
    unused = _check_disjoint(cut_model, parts)
    specs = specs_of(parts, example)
    wires = tuple(Wire.plain(found, number) for number, found in enumerate(specs))
    pipeline = Pipeline(parts, wires, example.clone(), 0, cut_model.digest, unused)
    with left_as_found(cut_model.model):
        torch.manual_seed(0)
        cut_model.model.eval()
        with torch.no_grad():
            whole = cut_model.model(example.clone())
        torch.manual_seed(0)
        if not same(pipeline.run(example), whole):
            raise SplitError(
                f"the parts of {type(cut_model.model).__name__} give another output than the whole in evaluation; name "
                "the submodules that make it up: blocks=[…]"
            )
    return pipeline


def _check_disjoint(cut_model: CutModel, parts: Sequence[Part]) -> tuple[str, ...]:
    """No array on two machines, all of the model's on one; returns those that nothing reads."""
    held: dict[str, str] = {}
    for part in parts:
        for name in part.module.state_dict():
            if name in held:
                raise SplitError(
                    f"{name!r} is on {held[name]!r} and on {part.machine!r}; cut where one machine needs it"
                )
            held[name] = part.machine
    whole = cut_model.model.state_dict()
    extra = [name for name in held if name not in whole]
    if extra:
        raise SplitError(f"a part holds {extra[0]!r}, which the model does not; name its submodules: blocks=[…]")
    return tuple(name for name in whole if name not in held)
