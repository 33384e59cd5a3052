"""Many names in little memory: the bytes of a million file names, not a million objects."""

import hashlib
import os
from array import array
from collections.abc import Iterator


class Names:
    """A list of names that grows at its end; 8 bytes a name besides the name's own.

    Example:
        >>> names = Names()
        >>> names.append("cat/1.jpg")
        >>> names.append("dog/2.jpg")
        >>> len(names), names[1], list(names)
        (2, 'dog/2.jpg', ['cat/1.jpg', 'dog/2.jpg'])
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q")

    def append(self, name: str) -> None:
        """Add a name, as the operating system spells it."""
        self._bytes += os.fsencode(name)
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(bytes(self._bytes[start : self._ends[index]]))

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def digest(self, *numbers: "array[int]") -> str:
        """Return a hash of the names and of numbers that belong to them, such as sizes."""
        total = hashlib.sha256(self._bytes)
        for column in (self._ends, *numbers):
            total.update(column.tobytes())
        return total.hexdigest()
