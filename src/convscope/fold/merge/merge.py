"""``merge_branches``: parallel linear branches of a network, merged into one convolution."""

from typing import Any

from torch import nn

from convscope.fold.merge.agree import agreeing, together
from convscope.fold.merge.candidate import Candidate
from convscope.fold.merge.carry import edits_of, vanished
from convscope.fold.merge.choose import choose
from convscope.fold.merge.constants import Run
from convscope.fold.merge.merged import Merge, Merged, MergedSum, Unmerged
from convscope.fold.merge.places import Places
from convscope.fold.merge.terms import sources, trees_of
from convscope.fold.norms.units import name_of
from convscope.tape import Tape, device_of, record


def merge_branches(model: nn.Module, inputs: Any, *, tape: Tape | None = None) -> Merged:
    """Return how sums of branches that are all linear in one value become one convolution each.

    A sum of convolutions of x, batch norms of x, average pools of x and x itself, scaled and nested in
    whatever way, is one convolution of x if all kernels lie in one of them: W' = Σ scale · kernel,
    b' = Σ shifts, in float64. Which sums there are is read off the recorded data flow. A merge is worth it
    if a batch norm or a convolution disappears. Nothing is changed: the edits are for
    :func:`convscope.fold.edits.carry_out` on the network or a copy of it, of any dtype.

    Args:
        model: a network with batch norms in evaluation mode, most often one that is folded already.
        inputs: as :func:`convscope.tape.record` takes them.
        tape: a recording of inference of ``model`` on ``inputs``, if there is one already.

    Returns:
        :class:`Merged`: the merges, and the batch norms in branches that can't be merged, with reasons.

    Raises:
        ConvscopeError: the network can't be recorded.

    Source:
        Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", arXiv 2101.03697, section 3.3, for
        k×k + 1×1 + identity; Ding et al., "Diverse Branch Block", arXiv 2103.13425, section 3.2, transforms
        II and V, for sums of convolutions and for average pooling.

    Not covered: convolutions one after the other, transposed convolutions, linear layers, branches of
    another stride, kernels none of which contains all others.

    Example:
        >>> from convscope.fold.edits import carry_out
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        ...     def forward(self, x):
        ...         return self.conv(x) + self.bn(x) + x
        >>> net = nn.Sequential(Block(), nn.ReLU()).eval()
        >>> merged = merge_branches(net, (2, 4, 6, 5))
        >>> merged.sums[0].into, merged.sums[0].batch_norms
        ('0.conv#1', ('0.bn#1',))
        >>> carry_out(net, merged.edits)
        >>> net[0]
        MergedBranches(
          was Block, with its branches merged
          (conv): Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
        )
    """
    tape = record(model, inputs, device=device_of(model)) if tape is None else tape
    run = Run(tape, model)
    trees = [tree for tree in trees_of(run) if max(sources(tree).values()) > 1]
    if not trees:
        return Merged()
    places = Places(run)
    choice = choose(run, places, trees)
    if tape.assumptions:
        reason = f"what runs depends on data, and one case was recorded: {tape.assumptions[0]}"
        gone = (call.index for candidate in choice.candidates for call in candidate.gone)
        return Merged((), _unmerged(run, choice.refused | dict.fromkeys(gone, reason)))
    candidates, disagreeing = agreeing(run, choice.candidates)
    merges = tuple(
        Merge(tuple(_sum(places, candidate) for candidate in group), edits_of(run, group))
        for group in together(candidates)
    )
    merged = {call.index for candidate in candidates for call in candidate.gone}
    refused = {**choice.refused, **disagreeing}
    return Merged(merges, _unmerged(run, {i: refused[i] for i in refused if i not in merged}))


def _sum(places: Places, candidate: Candidate) -> MergedSum:
    batch_norms = sorted((c for c in candidate.gone if c.op == "batch_norm"), key=lambda call: call.index)
    names = tuple(name_of(places.run, call) for call in batch_norms)
    return MergedSum(candidate.address, names, vanished(places, candidate), _inside(places, candidate))


def _inside(places: Places, candidate: Candidate) -> tuple[str, ...]:
    parts = (call.output for call in candidate.tree.calls if call.output != candidate.tree.value)
    return tuple(str(call.address) for part in parts for call in places.returning(part))


def _unmerged(run: Run, refused: dict[int, str]) -> tuple[Unmerged, ...]:
    calls = (run.tape.calls[index] for index in sorted(refused))
    return tuple(Unmerged(name_of(run, c), refused[c.index]) for c in calls if c.op == "batch_norm")
