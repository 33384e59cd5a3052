"""What is there before a step: in which order it is put on the device, and what stays in host memory.

Limits: the order of modules is that in which their parameters and buffers are named.
"""

from convscope.tape import Tape, TensorInfo

_SCALAR_BYTES = 8


def host_storages(tape: Tape) -> set[int]:
    """Return the storages that stay in host memory: Adam's counters of steps, and constants of the code."""
    if tape.device != "cuda":
        return set()
    numels = {parameter.name: parameter.numel for parameter in tape.parameters}
    counters_on_device = any(call.op.startswith("_fused_") for call in tape.calls)
    hosts = set()
    for storage in tape.storages:
        if storage.nbytes > _SCALAR_BYTES or storage.birth >= 0:
            continue
        counter = storage.role == "optimizer-state" and numels.get(storage.name, 0) > 1
        if storage.role == "constant" or (counter and not counters_on_device):
            hosts.add(storage.index)
    return hosts


def loading_order(tape: Tape) -> list[int]:
    """Return the storages that are there before a step, in the order in which they are put on the device.

    ``model.to(device)`` moves submodules first, then a module's own parameters, then its buffers; inputs and
    other tensors follow. Source: ``torch.nn.Module._apply``.
    """
    moved = [info.storage for info in _as_moved([*tape.parameters], [*tape.buffers])]
    standing = [s.index for s in tape.storages if s.birth < 0 and (s.role != "constant" or s.death is None)]
    return list(dict.fromkeys([*moved, *standing]))


def _as_moved(parameters: list[TensorInfo], buffers: list[TensorInfo], path: str = "") -> list[TensorInfo]:
    """A module's submodules', then its own parameters, then its own buffers."""
    depth = len(path.split(".")) if path else 0
    children: dict[str, tuple[list[TensorInfo], list[TensorInfo]]] = {}
    own: tuple[list[TensorInfo], list[TensorInfo]] = ([], [])
    for kind, infos in enumerate((parameters, buffers)):
        for info in infos:
            parts = info.name.split(".")
            if len(parts) == depth + 1:
                own[kind].append(info)
            else:
                children.setdefault(".".join(parts[: depth + 1]), ([], []))[kind].append(info)
    moved = [info for child, inner in children.items() for info in _as_moved(*inner, child)]
    return [*moved, *own[0], *own[1]]
