"""Backward rules: what takes the place of an operator's own derivative on the way from a unit to the image.

The deconvnet of Zeiler and Fergus (rectify, filter with the transposed filters, put pooled signals back to
where the maxima were) is the backward pass with one rule replaced: a ReLU hands on the positive part of
what comes from above, wherever the unit itself fired or not. The rest is autograd's own: the gradient of a
convolution is the transposed filtering, that of a max-pool follows the switches (and *sums* where windows
overlap), that of batch norm at test time is its scale; biases have no effect.

=========  ==========================  =====================================================
rule       ReLU, from signal g above    source
=========  ==========================  =====================================================
deconvnet  max(g, 0)                    Zeiler and Fergus 2014 (arXiv 1311.2901), section 2.1
guided     max(g, 0) where x > 0        Springenberg et al. 2015 (arXiv 1412.6806)
gradient   g where x > 0                Simonyan et al. 2014 (arXiv 1312.6034)
=========  ==========================  =====================================================

Local response normalisation is passed unchanged under deconvnet and guided, and by its derivative under
gradient, as in Mahendran and Vedaldi 2016 ("Salient deconvolutional networks").
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.probe import Probe, Visit
from convscope.sight.projection import Rule

ReluRule = Callable[[Visit], Any]

# A ReLU's backward operators, and which of their arguments is the signal from above.
_RELU_BACKWARDS = {"threshold_backward": 0, "where": 1}


def _signal(visit: Visit) -> Tensor:
    signal: Tensor = visit.args[_RELU_BACKWARDS[visit.site.op]]
    return signal


def _deconvnet(visit: Visit) -> Tensor:
    return _signal(visit).clamp(min=0)


def _guided(visit: Visit) -> Tensor:
    masked: Tensor = visit.run()
    return masked.clamp(min=0)


def _gradient(visit: Visit) -> Any:
    return visit.run()


RELU_RULES: dict[str, ReluRule] = {"deconvnet": _deconvnet, "guided": _guided, "gradient": _gradient}
"""What stands in for a ReLU's backward operator, by rule."""


@dataclass
class RuleBook:
    """The rules of one kind of projection, installed on a probe.

    Args:
        rule: see :data:`RELU_RULES`.
        relus: addresses of the forward ReLUs.
        identities: addresses of the divisions that are local response normalisations.

    Attributes:
        applied: addresses of the ReLUs that have been passed on the way back so far.
    """

    rule: Rule
    relus: frozenset[str]
    identities: frozenset[str]
    applied: set[str] = field(default_factory=set)

    def install(self, probe: Probe) -> None:
        """Let the rules stand in for operators in the probe's runs."""
        for op in _RELU_BACKWARDS:
            probe.around(op, self._relu)
        if self.rule != "gradient" and self.identities:
            probe.around("div", self._undivided)
            probe.around("neg", self._cut)

    def _relu(self, visit: Visit) -> Any:
        if visit.site.phase != "backward" or str(visit.forward) not in self.relus:
            return visit.run()
        self.applied.add(str(visit.forward))
        return RELU_RULES[self.rule](visit)

    def _undivided(self, visit: Visit) -> Any:
        """The signal of x in x / d: as it is."""
        return visit.args[0] if self._in_identity(visit) else visit.run()

    def _cut(self, visit: Visit) -> Any:
        """The signal of d in x / d, which autograd computes as −g · x / d²: nothing."""
        return torch.zeros_like(visit.args[0]) if self._in_identity(visit) else visit.run()

    def _in_identity(self, visit: Visit) -> bool:
        return visit.site.phase == "backward" and str(visit.forward) in self.identities


def check_rule(rule: str) -> None:
    """Refuse a rule that there isn't.

    Raises:
        ConvscopeError: it isn't one of :data:`~convscope.sight.projection.Rule`.
    """
    if rule not in get_args(Rule):
        raise ConvscopeError(
            f"rule={rule!r}", f"one of {', '.join(get_args(Rule))}", "'deconvnet' is Zeiler and Fergus's"
        )
