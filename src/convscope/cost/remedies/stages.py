"""Which parts of a network are worth checkpointing: run again in backward, in place of keeping their insides.

A checkpointed part keeps its inputs alone. What that can free at the peak is what was made inside it, is
kept for backward, and isn't its output, which the next part keeps anyway.

Limits: parts that write over their own input would compute something else the second time; they are left
out and named, unless the write is one that can be done twice (ReLU).
"""

import functools
from collections import Counter
from collections.abc import Iterator

from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from convscope.cost.remedies.changes import Change, Situation, batch_norms_at_work, enclosing, listed
from convscope.tape import Tape

_NUM_BEST = 4
_WORTH = 0.01  # of the memory alive at the peak; less isn't tried
_MOST = 0.75  # a child with so much of its parent's share is looked into
_TWICE = {"relu_", "hardtanh_", "clamp_min_", "clamp_"}


def checkpointed_stages(now: Situation) -> Iterator[Change]:
    """Each of the parts that keep most, all of them together, and a long sequence in segments."""
    if not now.tape.training:
        return
    freed = _freed_by_module(now)
    parent = _level(now.tape, freed)
    alive = sum(s.nbytes for s in now.tape.storages if _is_alive(s.birth, s.death, now.peak_call))
    paths: Counter[str] = Counter()
    for module in _children(now.tape, parent):
        paths[now.tape.modules[module].address.path] += freed[module]
    rewritten = {path for path in paths if _rewrites_input(now.tape, path)}
    ranked = [path for path, size in paths.most_common() if size > _WORTH * alive and path not in rewritten]
    for path in ranked[:_NUM_BEST]:
        yield _checkpointed(now, (path,), f"checkpoint:{path}")
    if len(ranked) > 1:
        yield _checkpointed(now, tuple(ranked), "checkpoint-all")
    yield from _in_segments(now, now.tape.modules[parent].address.path)


def _checkpointed(now: Situation, paths: tuple[str, ...], name: str) -> Change:
    def apply(model: nn.Module) -> None:
        for path in paths:
            module = model.get_submodule(path)
            again = functools.partial(checkpoint, module.forward, use_reentrant=False)
            module.forward = again

    single = len(paths) == 1
    stages = f"stage = model.get_submodule({paths[0]!r});" if single else (
        f"for stage in map(model.get_submodule, {list(paths)}):"
    )  # fmt: skip
    return Change(
        name,
        f"{'' if single else 'each of '}{listed(list(paths))} runs again in backward in place of "
        "keeping its insides",
        f"{stages} stage.forward = functools.partial(checkpoint, stage.forward, use_reentrant=False)",
        True,
        _note(now.tape, paths),
        apply,
    )


def _in_segments(now: Situation, path: str) -> Iterator[Change]:
    """A long ``nn.Sequential`` in about √n segments, each of which runs again in backward."""
    model = now.model if path == "self" else now.model.get_submodule(path)
    plain = type(model) is nn.Sequential
    if not plain or len(model) < 2 * _NUM_BEST:  # type: ignore[arg-type]
        return
    num_segments = round(len(model) ** 0.5)  # type: ignore[arg-type]
    size = len(model) // num_segments  # type: ignore[arg-type]
    starts = [f"{path}.{name}".removeprefix("self.") for name in list(model._modules)[::size]]

    def apply(network: nn.Module) -> None:
        sequence = network if path == "self" else network.get_submodule(path)
        sequence.forward = functools.partial(
            checkpoint_sequential, list(sequence.children()), num_segments, use_reentrant=False
        )

    rewritten = [start for start in starts if _rewrites_input(now.tape, start)]
    owner = "model" if path == "self" else f"model.{path}"
    yield Change(
        "checkpoint-segments",
        f"{path} runs in {num_segments} segments, all but the last of them again in backward",
        f"checkpoint_sequential({owner}, {num_segments}, x, use_reentrant=False)",
        True,
        _note(now.tape, (path,)),
        apply,
        impossible=f"{rewritten[0]} would begin a segment and writes over its input" if rewritten else "",
    )


def _freed_by_module(now: Situation) -> Counter[int]:
    """Bytes that a checkpoint around each module call would free at the peak."""
    tape, freed = now.tape, Counter[int]()
    leaving = {call.index: {tape.values[value].storage for value in call.outputs} for call in tape.modules}
    for storage in tape.storages:
        if storage.role != "activation" or not _is_alive(storage.birth, storage.death, now.peak_call):
            continue
        for module in enclosing(tape, tape.calls[storage.birth].module):
            if storage.index not in leaving[module]:
                freed[module] += storage.nbytes
    return freed


def _level(tape: Tape, freed: Counter[int]) -> int:
    """The module call whose children are the parts: the network, or the child that has nearly everything."""
    module = 0
    while True:
        children = _children(tape, module)
        best = max(children, key=lambda child: freed[child], default=None)
        if best is None or len(_children(tape, best)) < 2 or freed[best] < _MOST * freed[module]:
            return module
        module = best


def _children(tape: Tape, module: int) -> list[int]:
    return [call.index for call in tape.modules if call.parent == module and not call.recompute]


def _rewrites_input(tape: Tape, path: str) -> bool:
    """Whether the input of a module is another one by the time that backward runs it again."""
    for call in tape.modules:
        if call.address.path != path or call.recompute:
            continue
        inside = {c.index for c in tape.in_phase("forward") if call.index in enclosing(tape, c.module)}
        for given in (tape.values[value] for value in call.inputs):
            writers = [
                value.producer
                for value in tape.values
                if value.storage == given.storage and value.version > given.version
                and value.producer is not None and tape.calls[value.producer].phase == "forward"
            ]  # fmt: skip
            if any(not _can_be_done_twice(tape, writer, inside, given.storage) for writer in writers):
                return True
    return False


def _can_be_done_twice(tape: Tape, writer: int, inside: set[int], storage: int) -> bool:
    """Whether a write is a ReLU's, inside the part and before anything else in it reads its input."""
    call = tape.calls[writer]
    earlier = (index for index in inside if index < writer)
    read = any(
        tape.values[value].storage == storage for index in earlier for value in tape.calls[index].inputs
    )
    return call.op in _TWICE and writer in inside and not read


def _note(tape: Tape, paths: tuple[str, ...]) -> str:
    modules = {call.index for call in tape.modules if call.address.path in paths}
    inside = {call.index for call in tape.modules if modules & set(enclosing(tape, call.index))}
    twice = batch_norms_at_work(tape, inside)
    return f"running statistics of its {len(twice)} batch norms are updated twice a step" if twice else ""


def _is_alive(birth: int, death: int | None, call: int) -> bool:
    return 0 <= birth <= call and (death is None or call < death)
