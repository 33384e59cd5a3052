"""What is the largest batch that fits into so much memory, and what binds?

Every batch is run through PyTorch's caching allocator with the device's capacity as its limit: memory that is
cached but free goes back, and the request is tried again, before anything counts as full. The search is exact
in that sense, not an extrapolation. Three answers differ in what isn't known without the GPU:

- *safe*: the largest workspaces that cuDNN could take all fit, the CUDA context has its upper end,
  :data:`convscope.cost.batch.bounds.MARGIN_SHARE` of the memory stays free, and eight smaller batches
  fit too.
- *likely*: workspaces are taken where they fit, as PyTorch does; the context is halfway between its ends.
- *optimistic*: no workspaces, the smallest context.

On CPU they differ in the margin and the smaller batches alone.

Fitting isn't monotone in the batch: a smaller batch may not fit (``holes``). An answer is the largest batch
that fits: above ``bound`` the tensors alone need more than there is, or ``bound_by`` says what else ended the
search, and all batches in between were tried where ``exact`` is True.

Limits: what others take of the memory (a display, a second process, batches loaded ahead) has to be
subtracted from it; the allocator's settings are PyTorch's defaults.
"""

from dataclasses import replace
from typing import Literal

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.units import parse_bytes
from convscope.cost.batch.bounds import BatchBounds, assumptions, binding
from convscope.cost.batch.least import accepted_memory
from convscope.cost.batch.scaling import batch_of, with_batch
from convscope.cost.batch.steps import BatchSteps
from convscope.cost.batch.strides import in_items
from convscope.cost.batch.values import LargestBatch
from convscope.cost.memory.constants import gpu_figures
from convscope.tape import Tape, TrainingPlan, record
from convscope.tape.plan import describe
from convscope.tape.step import Step
from convscope.tape.substrate import Inputs

_DEFAULT_PLAN = TrainingPlan()


def largest_batch(
    model: nn.Module,
    inputs: Inputs,
    memory: str | int = "24GiB",
    plan: TrainingPlan | None = _DEFAULT_PLAN,
    *,
    device: Literal["cuda", "cpu"] = "cuda",
    gpu: str = "sm90",
    step: Step | None = None,
    max_batch: int = 65536,
) -> LargestBatch:
    """Return the largest batch whose step fits into a device's memory; the model comes back as it was.

    Args:
        model: any eager PyTorch module.
        inputs: a tensor, a tuple or dict of tensors, or a shape. The first size of the first one is the
            batch, and every tensor or shape with the same first size is scaled with it; how large it is given
            matters only to networks that don't run at every batch: see :attr:`LargestBatch.stride`.
        memory: of the device, such as ``"24GiB"``, or a number of bytes.
        plan: the training step; None for inference.
        device: whose memory rules to follow: ``"cuda"`` or ``"cpu"``.
        gpu: architecture or model, such as ``"sm80"`` or ``"T4"``: for workspaces and context.
        step: a step of the user's own, in place of the default one.
        max_batch: larger batches aren't tried.

    Raises:
        ConvscopeError: the memory isn't a positive size, an argument isn't known, or the network can't be
            recorded. That no batch fits is an answer, not an error: its batches are 0.

    Example:
        >>> net = nn.Linear(1024, 1024, bias=False)  # 4 MiB, and 8 KiB per item
        >>> largest_batch(net, (1, 1024), "64MiB", plan=None, device="cpu").likely.batch
        7680
    """
    total = _bytes_of(memory)
    if device not in ("cuda", "cpu"):
        raise ConvscopeError(f"device {device!r}", "'cuda' or 'cpu'", "choose one of them")
    if type(max_batch) is not int or max_batch < 1:
        raise ConvscopeError(f"max_batch={max_batch!r}", "a whole number of at least 1", "change it")
    figures = gpu_figures(gpu) if device == "cuda" else None
    batch_of(inputs)

    def recording(batch: int) -> Tape:
        return record(model, with_batch(inputs, batch), plan, step, device=device)

    steps = BatchSteps(recording, figures, batch_of(inputs))
    most = max_batch // steps.stride
    steps.smallest_step()
    assumed = assumptions(total, figures)
    found = BatchBounds(steps, total, most).find(assumed)
    rests_on = (batch for each in found for batch in (each.batch, each.stops_at) if batch)
    if not steps.check(rests_on):
        found = BatchBounds(steps, total, most).find(assumed)
    binds = binding(steps, found[1].batch or steps.smallest, found[1])
    tapes = (steps.smallest_step().tape, steps.at(binds.batch).tape)
    optimistic, likely, safe = (in_items(each, steps.stride) for each in found)
    return LargestBatch(
        network=type(model).__name__,
        plan=describe(plan),
        memory_bytes=total,
        device=device,
        gpu=figures.gpu if figures else None,
        safe=safe,
        likely=likely,
        optimistic=optimistic,
        binds=replace(binds, batch=binds.batch * steps.stride),
        smallest_batch=steps.smallest * steps.stride,
        needed_bytes=accepted_memory(steps.smallest_step(), assumed[:2]),
        max_batch=max_batch,
        checked=tuple(batch * steps.stride for batch in steps.checked),
        recorded_because=steps.recorded_because,
        stride=steps.stride,
        assumptions=tuple(dict.fromkeys(text for tape in tapes for text in tape.assumptions)),
        standing_bytes=steps.smallest_step().standing_bytes(),
    )


def _bytes_of(memory: str | int) -> int:
    if isinstance(memory, str):
        return parse_bytes(memory)
    if type(memory) is not int or memory <= 0:
        raise ConvscopeError(
            f"memory={memory!r}", "a size such as '24GiB', or a positive whole number of bytes", "change it"
        )
    return memory
