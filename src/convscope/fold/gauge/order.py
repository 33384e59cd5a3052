"""In which order batch norms are taken in: those that clash with the fewest others come first.

Batch norms that read one value give it one scale. Where what they write must keep its sign (a ReLU reads
it), that scale has the sign of their gammas; and where a gamma is 0, nothing of the value is left for the
others. A single batch norm that is unlike the rest would keep all of them if it were taken in first.

Limits: clashes are counted channel by channel, between batch norms that read values of the same scale, not
through others.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convscope.fold.gauge.labels import GROUND, Labels
from convscope.fold.gauge.links import Link
from convscope.fold.gauge.system import System

Group = tuple[int, ...]


def ordered(system: System, links: Sequence[Link], groups: Sequence[Group], roots: Labels) -> Sequence[Group]:
    """Return groups in the order of their clashes, fewest first; those with as many stay in their order.

    Args:
        system: what is asked of the labels.
        links: the batch norms.
        groups: indices of links that fold together or not at all.
        roots: for every label, the one that stands for all of its scale.
    """
    votes = _votes(system, links, groups, roots)
    clashes = np.zeros(len(groups), np.int64)
    for mine, theirs in (("up", "down"), ("down", "up"), ("zero", "some"), ("some", "zero")):
        against = np.bincount(votes[theirs][1], minlength=roots.size)
        against[GROUND] = 0
        group, root = votes[mine]
        np.add.at(clashes, group, against[root])
    return [groups[index] for index in np.argsort(clashes, kind="stable")]


def _votes(
    system: System, links: Sequence[Link], groups: Sequence[Group], roots: Labels
) -> dict[str, tuple[Labels, Labels]]:
    """What groups want of the scale of what they read: (group, root) pairs by kind.

    ``"up"`` and ``"down"``: its sign; ``"some"``: that it isn't 0; ``"zero"``: that it is.
    """
    signed, some = (_asked(system, kinds, roots) for kinds in (("positive",), ("positive", "nonzero")))
    members = [(place, links[index]) for place, group in enumerate(groups) for index in group]
    nothing = np.empty(0, np.int64)
    group = np.concatenate([nothing, *(np.full(link.before.size, place) for place, link in members)])
    before = roots[np.concatenate([nothing, *(link.before for _, link in members)])]
    after = roots[np.concatenate([nothing, *(link.after for _, link in members)])]
    scale = np.concatenate([np.empty(0), *(link.scale for _, link in members)])
    wanted: dict[str, npt.NDArray[np.bool_]] = {
        "up": (scale > 0) & signed[after],
        "down": (scale < 0) & signed[after],
        "some": (scale != 0) & some[after],
        "zero": scale == 0,
    }
    return {kind: (group[where], before[where]) for kind, where in wanted.items()}


def _asked(system: System, kinds: Sequence[str], roots: Labels) -> npt.NDArray[np.bool_]:
    """Whether something is asked of any label with that root; of ``GROUND`` it always is."""
    found = np.zeros(roots.size, dtype=np.bool_)
    found[roots[GROUND]] = True
    for demand in system.demands:
        if demand.kind in kinds:
            found[roots[demand.labels]] = True
    return found
