"""Short names of operators at the axis of a chart."""


def operator_label(name: str, address: str) -> str:
    """Return what an operator is called where there is little room: its module, or which function it is.

    Args:
        name: the module's path where that is enough; else the address.
        address: of the operator.

    Example:
        >>> operator_label("conv1", "conv1#1:convolution.1")
        'conv1'
        >>> operator_label("self#1:max_pool2d_with_indices.2", "self#1:max_pool2d_with_indices.2")
        'max_pool2d.2'
        >>> operator_label("stage#2:avg_pool2d.1", "stage#2:avg_pool2d.1")
        'stage (call 2): avg_pool2d.1'
    """
    if "#" not in name:
        return name
    path, _, rest = address.partition("#")
    call, _, operator = rest.partition(":")
    where = "" if path == "self" else path if call == "1" else f"{path} (call {call})"
    return ": ".join(filter(None, (where, operator.replace("_with_indices", "")))) or address
