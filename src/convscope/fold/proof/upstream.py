"""Which places a value is made of directly: those from which it can be reached past no other place."""

from collections.abc import Collection, Iterable

from convscope.tape import ModuleCall, Tape


class Upstream:
    """Some module calls of a recorded run, and which of them depend on which.

    Args:
        tape: the recording; None if there is none, and nothing is known.
        addresses: the module calls.
    """

    def __init__(self, tape: Tape | None, addresses: Collection[str]) -> None:
        self._tape = tape
        self._addresses = frozenset(addresses)
        self._at: dict[int, set[str]] = {}
        for address in addresses:
            for value in self._values_at(address)[:1]:
                self._at.setdefault(value, set()).add(address)

    def of(self, address: str) -> frozenset[str]:
        """Return the places that the value at a place is made of directly."""
        return self._back(value for made in self._values_at(address)[:1] for value in self._read_for(made))

    def of_outputs(self) -> frozenset[str]:
        """Return the places that the outputs are made of directly; all of them if nothing is known."""
        return self._addresses if self._tape is None else self._back(self._tape.outputs)

    def firsts(self, addresses: Collection[str]) -> frozenset[str]:
        """Return those of some places which depend on no other of them."""
        return frozenset(each for each in addresses if not self._depends(each, frozenset(addresses) - {each}))

    def _depends(self, address: str, others: frozenset[str]) -> bool:
        seen, left = {address}, self.of(address)
        while left:
            if left & others:
                return True
            seen |= left
            left = frozenset(far for near in left for far in self.of(near)) - seen
        return False

    def _values_at(self, address: str) -> tuple[int, ...]:
        call = self._tape.find(address) if self._tape is not None else None
        return call.outputs if isinstance(call, ModuleCall) else ()

    def _read_for(self, value: int) -> tuple[int, ...]:
        maker = self._tape.producer(value) if self._tape is not None else None
        return () if maker is None else maker.inputs

    def _back(self, values: Iterable[int]) -> frozenset[str]:
        """The places at values and before them, and none behind these."""
        found, seen, left = set[str](), set[int](), list(values)
        while left:
            value = left.pop()
            if value in seen:
                continue
            seen.add(value)
            if value in self._at:
                found |= self._at[value]
            else:
                left += self._read_for(value)
        return frozenset(found)
