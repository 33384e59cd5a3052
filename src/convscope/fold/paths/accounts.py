"""One recorded path in terms that hold on others too: calls by address, values by where they are from."""

from dataclasses import dataclass
from typing import Any

from convscope.fold.paths.paths import Path
from convscope.tape import OperatorCall, Ref

Origin = str
"""Where a value is from, such as ``"output 0 of conv1#1:convolution.1"`` or ``"parameter conv1.weight"``."""

CODE = "code of "
"""What names a reader that is Python code, not an operator."""


@dataclass(frozen=True)
class Given:
    """A tensor that an operator call is given.

    Attributes:
        origin: where it is from.
        form: its shape and dtype.
        from_data: whether it depends on the network's inputs.
    """

    origin: Origin
    form: tuple[Any, ...]
    from_data: bool

    def __str__(self) -> str:
        return self.origin


def agree(one: Any, other: Any) -> bool:
    """Whether calls that are given these arguments do the same.

    Tensors of one form that depend on the inputs may come from elsewhere: such values are uncertain, so
    nothing changes them.
    """
    if isinstance(one, Given) and isinstance(other, Given):
        varies = one.from_data and other.from_data and one.form == other.form
        return varies or one == other
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(agree, one, other))
    return type(one) is type(other) and bool(one == other)


class Account:
    """What a path does.

    Args:
        path: the recording.

    Attributes:
        addresses: of all operator and module calls.
        calls: the arguments of every operator call, by its address; tensors by their origins.
        readers: what reads values of an origin, and as what: the address of an operator call and the name of
            its argument, or words.
    """

    def __init__(self, path: Path) -> None:
        self._tape, self._open_at = path.tape, path.open_at
        self._origins = [self._origin(value.index) for value in self._tape.values]
        self._last: dict[Origin, float] = {}
        self._from_data = self._depending()
        self.readers: dict[Origin, dict[tuple[str, str], None]] = {}
        self.calls = {str(call.address): self._call(call) for call in self._tape.calls}
        modules = {str(module.address) for module in self._tape.modules}
        self.addresses = frozenset({*self.calls, *modules})
        self._note_readers()
        self._note_ends()

    def origin(self, value: int) -> Origin:
        """Return where a value is from."""
        return self._origins[value]

    def described(self, value: int) -> str:
        """Return what a value is, for a reason."""
        producer = self._tape.producer(value)
        return self._origins[value] if producer is None else f"what {producer.address} writes"

    def is_over(self, origin: Origin) -> bool:
        """Whether all is done with the values of an origin before unseen paths can branch off."""
        return self._open_at is None or self._last.get(origin, 0) <= self._open_at

    def _origin(self, index: int) -> Origin:
        value, producer = self._tape.values[index], self._tape.producer(index)
        if producer is not None and index in producer.outputs:
            return f"output {producer.outputs.index(index)} of {producer.address}"
        storage = self._tape.storages[value.storage]
        region = f"({value.offset}, {value.shape}, {value.stride}, {value.dtype})"
        if producer is not None:
            return f"region {region} after {producer.address}"
        whole = storage.nbytes == value.nbytes and not value.offset
        named = f"{storage.role} {storage.name}".strip()
        return named if whole and storage.name else f"part {region} of {named}"

    def _depending(self) -> set[int]:
        """The values that depend on the network's inputs."""
        found = set(self._tape.inputs)
        for call in self._tape.calls:
            if not found.isdisjoint(call.inputs):
                found.update(value for value in call.outputs if value is not None)
        return found

    def _call(self, call: OperatorCall) -> dict[str, Any]:
        return {"operator": call.overload, **{k: self._given(v) for k, v in call.arguments.items()}}

    def _given(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            value = self._tape.values[argument.value]
            form = value.shape, value.dtype
            return Given(self._origins[value.index], form, value.index in self._from_data)
        if isinstance(argument, tuple):
            return tuple([self._given(item) for item in argument])
        return argument if argument == argument else repr(argument)  # NaN

    def _note_readers(self) -> None:
        tape = self._tape
        for call in tape.calls:
            for name, argument in call.arguments.items():
                for position, value in enumerate(_references(argument)):
                    self._note(value, str(call.address), call.index + 1, f"{name}.{position}")
        for position, value in enumerate(tape.outputs):
            self._note(value, f"output {position} of the network", float("inf"))
        for question in tape.questions:
            for value in question.values:
                self._note(value, f"{CODE}{question.where}")
        for module in tape.modules:
            for value in module.inputs:
                self._note(value, f"module call {module.address}")
            for value in module.outputs:
                self._note(value, f"what module call {module.address} returns")

    def _note_ends(self) -> None:
        for value in self._tape.values:
            storage = self._tape.storages[value.storage]
            if storage.birth < 0 and not value.version:
                continue  # it was there before, and stays
            if storage.death is None:
                self._note(value.index, "something that keeps it after the run", float("inf"))
            else:
                self._end(value.index, max(storage.death, (value.producer or 0) + 1))

    def _note(self, value: int, reader: str, end: float = 0, argument: str = "") -> None:
        self.readers.setdefault(self._origins[value], {})[reader, argument] = None
        self._end(value, end)

    def _end(self, value: int, end: float) -> None:
        origin = self._origins[value]
        self._last[origin] = max(self._last.get(origin, 0), end)


def _references(argument: Any) -> list[int]:
    """The values that an argument refers to, in order."""
    if isinstance(argument, Ref):
        return [argument.value]
    if isinstance(argument, tuple):
        return [value for item in argument for value in _references(item)]
    return []
