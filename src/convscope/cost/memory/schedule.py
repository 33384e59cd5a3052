"""When is each block of memory taken and given back, from loading the model to steady training steps?

Blocks are numbered: first the tape's storages (``sizes[i]`` belongs to ``tape.storages[i]``, 0 for what lies
in host memory), then what operators take inside themselves. Events are numbers too: ``b`` takes block b,
``~b`` gives it back.

The order is PyTorch's:

1. Loading: ``model.to(device)`` moves submodules first, then a module's own parameters, then its buffers
   (``torch.nn.Module._apply``). Then come inputs and other tensors that the step finds.
2. The first step makes the optimizer's states at the optimizer's first operator that reads one.
3. Later steps find the states. Before their first operator the step before has given back its outputs and
   its gradients, or, with ``set_to_none=False``, keeps the gradients: backward then makes a second block for
   each, which goes once it has been added.
4. At an operator: what died since the one before goes, its results come in order, and what it takes inside
   itself comes and goes.

Limits: a step of the user's own whose optimizer made its states while it was recorded is replayed as such
a first step each time; what is dropped together goes in the order of its making.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from convscope.cost.memory.scratch import Kernel, passings
from convscope.cost.memory.standing import host_storages, loading_order
from convscope.tape import OperatorCall, Tape

Events = tuple[int, ...]

_MATRIX_PRODUCTS = frozenset({"addmm", "mm", "bmm", "baddbmm", "addbmm", "addmv", "mv", "dot", "vdot"})


@dataclass(frozen=True)
class Schedule:
    """Blocks and the order in which they are taken and given back.

    Attributes:
        sizes: bytes of each block; what ``sizes_of`` returns for the same step at another size fits too.
        num_storages: the first blocks are the tape's storages.
        added: gradients that are kept between steps, by storage. What backward makes to be added to them are
            the next blocks; those after them are what operators take inside themselves.
        standing: blocks taken on loading, in order; they stay.
        before: blocks given back before a step's first operator.
        first: events of the first step, per operator call.
        steady: events of later steps, per operator call.
        kernels: number of cuDNN convolution kernels. The k-th one's workspace is block ``len(sizes) + k``.
        products: calls of the first matrix product and of the first linear layer with bias in the thread
            that calls, and of the first product in the thread that runs backward; None: there is none. Their
            workspaces are the three blocks after the kernels', taken in the first step.
    """

    sizes: tuple[int, ...]
    num_storages: int
    added: tuple[int, ...]
    standing: Events
    before: Events
    first: tuple[Events, ...]
    steady: tuple[Events, ...]
    kernels: int
    products: tuple[int | None, int | None, int | None]

    @property
    def num_blocks(self) -> int:
        """Blocks of all kinds, the libraries' included."""
        return len(self.sizes) + self.kernels + len(self.products)

    @property
    def kernel_blocks(self) -> range:
        """The blocks of cuDNN's workspaces."""
        return range(len(self.sizes), len(self.sizes) + self.kernels)

    @property
    def product_blocks(self) -> range:
        """The blocks of cuBLAS's workspaces, in the order of ``products``."""
        return range(len(self.sizes) + self.kernels, self.num_blocks)


def sizes_of(tape: Tape) -> tuple[int, ...]:
    """Return the bytes of each block of a step, for :attr:`Schedule.sizes`."""
    hosts = host_storages(tape)
    storages = [0 if storage.index in hosts else storage.nbytes for storage in tape.storages]
    doubles = [tape.storages[index].nbytes for index in _added_gradients(tape)]
    return (*storages, *doubles, *(size for call in tape.calls for size in _copies_in(tape, call)))


def schedule_of(tape: Tape) -> Schedule:
    """Return the blocks of a recorded step and the order in which they are taken and given back."""
    sizes = sizes_of(tape)
    added = _added_gradients(tape)
    births, deaths = _lives(tape)
    lazy = [s.index for s in tape.storages if s.role == "optimizer-state" and s.birth < 0 and s.name]
    made_later = {*lazy, *added}
    standing = tuple(index for index in loading_order(tape) if index not in made_later)
    products = _products(tape)
    first, steady = _Builder(tape, sizes, births, deaths), _Builder(tape, sizes, births, deaths)
    first.takes(_optimizer_call(tape, lazy), lazy)
    for block, (gradient, call) in enumerate(added.items(), start=len(tape.storages)):
        first.makes(call, gradient)
        steady.makes(call, block, passing=True)
    library = len(sizes) + first.num_kernels
    for block, product in enumerate(products, start=library):
        if product is not None:
            first.makes(product, block)
    return Schedule(
        sizes=sizes,
        num_storages=len(tape.storages),
        added=tuple(added),
        standing=standing,
        before=tuple(index for index in sorted(births) if deaths[index] >= len(tape.calls)),
        first=first.events(),
        steady=steady.events(),
        kernels=first.num_kernels,
        products=products,
    )


class _Builder:
    """Events of one step, per call."""

    def __init__(
        self, tape: Tape, sizes: tuple[int, ...], births: dict[int, int], deaths: dict[int, int]
    ) -> None:
        count = len(tape.calls)
        self._tape = tape
        self._given_back: list[list[int]] = [[] for _ in range(count)]
        self._ahead: list[list[int]] = [[] for _ in range(count)]
        self._made: list[list[int]] = [[] for _ in range(count)]
        self._behind: list[list[int]] = [[] for _ in range(count)]
        for index, birth in births.items():
            self._made[birth].append(index)
            if deaths[index] < count:
                self._given_back[deaths[index]].append(index)
        self._passing = _passing_blocks(tape, sizes)
        self.num_kernels = sum(kernel is not None for held in self._passing for *_, kernel in held)

    def takes(self, call: int, blocks: list[int]) -> None:
        """Have blocks taken at the begin of a call."""
        if blocks:
            self._ahead[call].extend(blocks)

    def makes(self, call: int, block: int, passing: bool = False) -> None:
        """Have a block taken at the end of a call, and given back right after it if it is passing."""
        self._behind[call].append(block)
        if passing and call + 1 < len(self._behind):
            self._given_back[call + 1].append(block)
        elif passing:
            self._behind[call].append(~block)

    def events(self) -> tuple[Events, ...]:
        """Return the events per call."""
        return tuple(tuple(self._events_of(call)) for call in self._tape.calls)

    def _events_of(self, call: OperatorCall) -> Iterator[int]:
        yield from (~block for block in self._given_back[call.index])
        yield from self._ahead[call.index]
        waiting = sorted(self._made[call.index])
        for after, blocks, _ in self._passing[call.index]:
            result = call.outputs[after]
            made = -1 if result is None else self._tape.values[result].storage
            ready = waiting.index(made) + 1 if made in waiting else 0
            yield from waiting[:ready]
            del waiting[:ready]
            yield from blocks
            yield from (~block for block in reversed(blocks))
        yield from waiting
        yield from self._behind[call.index]


def _passing_blocks(tape: Tape, sizes: tuple[int, ...]) -> list[list[tuple[int, list[int], Kernel | None]]]:
    """Per call what it takes inside itself: after which result, which blocks, for which kernel."""
    found: list[list[tuple[int, list[int], Kernel | None]]] = []
    copy, kernel = len(tape.storages) + len(_added_gradients(tape)), len(sizes)
    for call in tape.calls:
        held: list[tuple[int, list[int], Kernel | None]] = []
        for passing in passings(tape, call) if tape.device == "cuda" else ():
            blocks = list(range(copy, copy + len(passing.copies)))
            copy += len(passing.copies)
            if passing.kernel is not None:
                blocks.append(kernel)
                kernel += 1
            held.append((passing.after, blocks, passing.kernel))
        found.append(held)
    return found


def _copies_in(tape: Tape, call: OperatorCall) -> Iterator[int]:
    for passing in passings(tape, call) if tape.device == "cuda" else ():
        yield from passing.copies


def _lives(tape: Tape) -> tuple[dict[int, int], dict[int, int]]:
    """Birth and death of what a steady step makes; what outlives it dies at the number of calls."""
    count = len(tape.calls)
    births, deaths = {}, {}
    readers = _first_readers(tape)
    for storage in tape.storages:
        birth, death = storage.birth, count if storage.death is None else storage.death
        if storage.role == "constant" and birth < 0 and storage.death is not None:
            birth = readers.get(storage.index, -1)
        if 0 <= birth < min(death, count):
            births[storage.index], deaths[storage.index] = birth, death
    return births, deaths


def _first_readers(tape: Tape) -> dict[int, int]:
    """By storage, the first call that reads it: constants are made anew in every step, just before that."""
    readers: dict[int, int] = {}
    for call in tape.calls:
        for value in call.inputs:
            readers.setdefault(tape.values[value].storage, call.index)
    return readers


def _added_gradients(tape: Tape) -> dict[int, int]:
    """Standing gradients, and the call which made what was added to each."""
    standing = {s.index for s in tape.storages if s.role == "gradient" and s.birth < 0}
    makers: dict[int, int] = {}
    for value in tape.values if standing else ():
        if value.storage in standing and value.producer is not None:
            makers.setdefault(value.storage, value.producer)
    return dict(sorted(makers.items()))


def _optimizer_call(tape: Tape, lazy: list[int]) -> int:
    """The call at whose begin the first step makes the optimizer's states."""
    states = set(lazy)
    for call in tape.in_phase("optimizer"):
        if any(tape.values[value].storage in states for value in call.inputs):
            return call.index
    return max(len(tape.calls) - 1, 0)


def _products(tape: Tape) -> tuple[int | None, int | None, int | None]:
    """See :attr:`Schedule.products`."""
    if tape.device != "cuda":
        return None, None, None
    calls = [call for call in tape.calls if call.op in _MATRIX_PRODUCTS]
    here = [call for call in calls if call.phase not in ("backward", "recompute")]
    there = [call for call in calls if call.phase in ("backward", "recompute")]
    with_bias = [call for call in here if _runs_on_cublaslt(tape, call)]
    first, linear, behind = (group[0].index if group else None for group in (here, with_bias, there))
    return first, linear, behind


def _runs_on_cublaslt(tape: Tape, call: OperatorCall) -> bool:
    """``addmm`` with a vector for bias and no axis of size 1 (``ATen/native/cuda/Blas.cpp``)."""
    bias, weight = call.tensor("self"), call.tensor("mat2")
    if call.op != "addmm" or bias is None or weight is None:
        return False
    return len(tape.values[bias].shape) == 1 and min(tape.values[weight].shape) > 1
