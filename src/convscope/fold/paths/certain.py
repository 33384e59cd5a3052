"""What one recorded path of a network does on every other path too, and why the rest doesn't.

A value of the first path is certain if, on every recorded path, the same operator call writes it and the same
calls read it; if no Python code reads it; and if it is an output on all paths or on none. Calls are the same
if their addresses, arguments and the forms of their tensors are, and what doesn't depend on the network's
inputs is from the same place. A change of certain values alone that is exact on the first path is then exact
on every recorded one: what a call reads or writes that isn't the same everywhere is uncertain, and so is what
a call reads from one place here, from another there.

Where unseen paths may exist, a value is certain only if, on every recorded path, all that is done with it is
done, and its memory free, before they can branch off.

Limits: two constants of one shape and dtype count as one; an unseen path may call a layer once more.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property

from convscope.core.address import Address, parse_address
from convscope.fold.paths.accounts import CODE, Account, Origin, agree
from convscope.fold.paths.paths import Paths
from convscope.tape import OperatorCall


class Certain:
    """The verdict on every call and value of the first recorded path.

    Args:
        paths: what was recorded.

    Example:
        >>> from torch import nn
        >>> from convscope.fold.paths.paths import recorded_paths
        >>> class Gated(nn.Module):
        ...     def forward(self, x):
        ...         x = x * 2 + 1
        ...         return x.relu() if x.sum() > 0 else x.tanh()
        >>> certain = Certain(recorded_paths(Gated(), (2, 3)))
        >>> certain.why_not("self#1:mul.1", "self#1:add.1")
        ''
        >>> certain.why_not("self#1:tanh.1")
        'self#1:tanh.1 runs on 1 of the 2 recorded paths'
    """

    def __init__(self, paths: Paths) -> None:
        self._doubt = paths.doubt
        self._tape = paths.recorded[0].tape
        self._accounts = [Account(path) for path in paths.recorded]
        self._differences: dict[str, str] = {}

    @cached_property
    def on_every_path(self) -> frozenset[str]:
        """Addresses of the operator and module calls that are on every recorded path."""
        return frozenset.intersection(*(account.addresses for account in self._accounts))

    @cached_property
    def uncertain(self) -> dict[int, str]:
        """The values of the first path that must keep what they hold, each with the reason."""
        if len(self._accounts) == 1 and not self._doubt and not self._tape.questions:
            return {}
        reasons = {value.index: self._why_uncertain(value.index) for value in self._tape.values}
        return {value: reason for value, reason in reasons.items() if reason}

    def why_not(self, *named: Address | str) -> str:
        """Return why calls of the first path can't hand a scale and a shift to one another, or "".

        They can if they are the same on every path, and if the parameters and buffers that they read, and the
        values that pass between them, are certain.

        Args:
            named: addresses: a batch norm, the layers that are to absorb it and whatever lies between. A
                module call stands for the operator calls in it.
        """
        names = [str(parse_address(str(name))) for name in named]
        for name in names:
            number = sum(name in account.addresses for account in self._accounts)
            if number < len(self._accounts):
                return f"{name} runs {self._on(number)}" if number else f"{name} isn't on any path"
        calls = [call for name in names for call in self._calls_at(name)]
        written = {value for call in calls for value in call.outputs}
        concerned = [
            value for call in calls for value in call.inputs if value in written or self._is_held(value)
        ]
        reasons = [
            *(self._differs(str(call.address)) for call in calls),
            *(self.uncertain.get(value, "") for value in concerned),
        ]
        return next(filter(None, reasons), "")

    def _calls_at(self, name: Address | str) -> Iterator[OperatorCall]:
        found = self._tape.find(name)
        assert found is not None
        if isinstance(found, OperatorCall):
            yield found
            return
        yield from self._tape.calls_of(found.index)
        for child in self._tape.modules:
            if child.parent == found.index:
                yield from self._calls_at(child.address)

    def _is_held(self, value: int) -> bool:
        """Whether a value is a parameter or buffer of the network, or a view of one."""
        return self._tape.storages[self._tape.values[value].storage].role in ("parameter", "buffer")

    def _why_uncertain(self, value: int) -> str:
        first, producer = self._accounts[0], self._tape.producer(value)
        origin = first.origin(value)
        reason = "" if producer is None else self._differs(str(producer.address))
        reason = reason or self._why_read(origin, first.described(value))
        if reason or not self._doubt or all(account.is_over(origin) for account in self._accounts):
            return reason
        return f"{self._doubt}; paths other than the {len(self._accounts)} recorded can't be ruled out"

    def _why_read(self, origin: Origin, what: str) -> str:
        """Why the readers of a value make it uncertain, or nothing."""
        readers = Counter(reader for account in self._accounts for reader in account.readers.get(origin, ()))
        for (reader, _), number in readers.items():
            if reader.startswith(CODE):
                return f"{what} is read by {reader}"
            if number < len(self._accounts):
                return f"{what} goes to {reader} {self._on(number)} only"
            if reason := self._differs(reader):
                return f"{what} goes to {reader}, and {reason}"
        return ""

    def _differs(self, address: str) -> str:
        """Why an operator call isn't the same on every path, or nothing."""
        if address not in self._differences:
            self._differences[address] = self._compared(address)
        return self._differences[address]

    def _compared(self, address: str) -> str:
        found = [account.calls[address] for account in self._accounts if address in account.calls]
        if not found:
            return ""  # no operator call
        if len(found) < len(self._accounts):
            return f"{address} runs {self._on(len(found))}"
        for name, argument in found[0].items():
            other = next((call.get(name) for call in found if not agree(call.get(name), argument)), argument)
            if other is not argument:
                return f"{address} is given {argument} as its {name} on one recorded path, {other} on another"
        return ""

    def _on(self, number: int) -> str:
        return f"on {number} of the {len(self._accounts)} recorded paths"
