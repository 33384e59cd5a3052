"""Operators' names as tapes write them, from what users write."""

from convscope.core.errors import ConvscopeError


def plain_name(operator: str) -> str:
    """Return an operator's name on tapes: ``LIBRARY_OPERATOR``, PyTorch's own without a library.

    Args:
        operator: that name, or ``LIBRARY::OPERATOR`` as PyTorch writes it, without overload.

    Raises:
        ConvscopeError: it can't be an operator's name.

    Example:
        >>> plain_name("mylib::correlate"), plain_name("aten::relu"), plain_name("mylib_correlate")
        ('mylib_correlate', 'relu', 'mylib_correlate')
    """
    library, _, name = operator.rpartition("::")
    plain = name if library in ("", "aten") else f"{library}_{name}"
    if not plain.isidentifier():
        raise ConvscopeError(
            f"a rule for operator {operator!r}",
            "a name such as 'relu', 'mylib_correlate' or 'mylib::correlate'",
            "write it as the list of uncounted operators does, without overload",
        )
    return plain
