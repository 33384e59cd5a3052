"""Addresses: stable, readable names of module calls and operator calls.

``layer1.0.bn1#1`` is the first call of the module ``layer1.0.bn1`` in a run;
``features.denseblock3#1:cat.4`` is the fourth ``cat`` that runs directly in the first call of that module
(operators of its submodules have those submodules' addresses). Operators are counted per name, so that
bookkeeping operators which come and go between modes don't shift the others. The network itself is the
module ``self``.
"""

import re
from dataclasses import dataclass

from convscope.core.errors import ConvscopeError

ROOT = "self"
_PATTERN = re.compile(r"(?P<path>.+?)(?:#(?P<call>[1-9]\d*))?(?::(?P<op>\w+)\.(?P<number>[1-9]\d*))?")


@dataclass(frozen=True)
class Address:
    """The name of a module call, or of an operator call inside one.

    Attributes:
        path: the module's path in the network, ``"self"`` for the network itself.
        call: which call of that module in the run, from 1.
        op: the operator's name, or None for the module call itself.
        number: which call of that operator directly inside the module call, from 1; 0 for a module call.
    """

    path: str
    call: int = 1
    op: str | None = None
    number: int = 0

    def __str__(self) -> str:
        module = f"{self.path}#{self.call}"
        return module if self.op is None else f"{module}:{self.op}.{self.number}"

    @property
    def module(self) -> "Address":
        """The address of the module call that this one is in."""
        return Address(self.path, self.call)


def parse_address(text: str) -> Address:
    """Return the address that a text names; a bare path means the module's first call.

    A path may have colons in it. Of a text without ``#`` what can be an operator is one.

    Raises:
        ConvscopeError: the text isn't an address.

    Example:
        >>> parse_address("features.denseblock3#1:cat.4")
        Address(path='features.denseblock3', call=1, op='cat', number=4)
        >>> str(parse_address("conv1"))
        'conv1#1'
        >>> parse_address("stage:1.conv#1:cat.4").path
        'stage:1.conv'
    """
    match = _PATTERN.fullmatch(text)
    if match is None or "#" in match["path"]:
        raise ConvscopeError(
            f"address {text!r}",
            "PATH, PATH#CALL or PATH#CALL:OPERATOR.NUMBER",
            "see `convscope cost` for them",
        )
    return Address(match["path"], int(match["call"] or 1), match["op"], int(match["number"] or 0))
