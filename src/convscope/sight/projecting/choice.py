"""Which rule suits a network: the deconvnet where its pictures are about the image, the gated rule elsewhere.

A deconvnet's picture depends on the image only through the switches of max-pools: above the last of them,
every image gives the same signal, a template of the weights. With one pool alone (a ResNet's, after the stem)
almost the whole network is such a template, which the switches of that pool then scramble: the gates of the
activations must stand in for them.
"""

from collections.abc import Iterable

from convscope.sight.projecting.below import Below
from convscope.sight.projecting.projection import Rule


def chosen_rule(below: Below, values: Iterable[int]) -> tuple[Rule, str]:
    """Return the rule for a network's units, and the reason, a sentence.

    ``deconvnet`` where all activations on the way to the units are ReLUs and a max-pool lies above another
    one, ``gated`` elsewhere.

    Args:
        below: the roles of the network's operators.
        values: the units' maps; one rule serves them all, so that layers can be compared.

    Source:
        Springenberg et al. 2015 (arXiv 1412.6806), section 3.4, for the dependence on switches.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> tape = record(nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU()), (1, 3, 9, 9))
        >>> chosen_rule(Below(tape), tape.outputs)
        ('gated', 'the deconvnet is defined for ReLU alone, and silu at 1#1:silu.1 is another one')
    """
    calls = {call.index: call for value in values for call in below.path_to(value, "deconvnet")}
    other = next((calls[index] for index in sorted(calls) if below.role(calls[index]) == "gate"), None)
    if other is not None:
        return (
            "gated",
            f"the deconvnet is defined for ReLU alone, and {other.op} at {other.address} is another one",
        )
    pools = sorted(
        (call for call in calls.values() if below.role(call) == "switch"), key=lambda call: call.index
    )
    for pool in pools:
        if any(below.role(call) == "switch" for call in below.path_to(pool.inputs[0], "deconvnet")):
            return "deconvnet", (
                f"all activations are ReLUs, and {pool.op} at {pool.address}, above another pool, makes the "
                "deconvnet's picture depend on the image"
            )
    if not pools:
        return "gated", "no max-pool lies below: the deconvnet's picture wouldn't depend on the image"
    return "gated", (
        f"no max-pool lies above {pools[0].address}: there the deconvnet's signal ignores the image"
    )
