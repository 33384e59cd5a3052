"""The one error family that users see."""


class ConvscopeError(Exception):
    """Bad input: what was given, what was expected, and what to do next, on one line.

    Args:
        given: what convscope was handed, with the layer's path or the file's name where there is one.
        expected: what would have been right.
        action: what to do next.

    Example:
        >>> print(ConvscopeError("unknown network 'alexnte'", "a known one", "try 'alexnet'"))
        unknown network 'alexnte'; expected a known one; try 'alexnet'
    """

    def __init__(self, given: str, expected: str, action: str) -> None:
        self.given = given
        self.expected = expected
        self.action = action
        super().__init__(" ".join(f"{given}; expected {expected}; {action}".split()))

    def __reduce__(self) -> tuple[type["ConvscopeError"], tuple[str, str, str]]:
        return type(self), (self.given, self.expected, self.action)
