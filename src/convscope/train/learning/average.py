"""The exponential moving average of a network's weights.

It lags behind the weights by about 1 / (1 − decay) steps and leaves out their noise. Running statistics
aren't averaged: an average of statistics that belonged to other weights is right for none. They are
estimated anew for the averaged weights (:mod:`convscope.train.running.averaged`).
"""

import torch
from torch import Tensor, nn


class Average:
    """The average of all floating point parameters, updated in place after every step.

    With the n-th update (from 1) it becomes d · average + (1 − d) · weights, where d is the smaller of decay
    and (1 + n) / (10 + n), so that the first weights, with which it begins, are soon forgotten: with a
    constant d of 0.999 they would still weigh 37 % after 1,000 steps. The warm-up is over after
    (10 · decay − 1) / (1 − decay) updates: 80 for 0.9, 8,990 for 0.999.

    Kept in float32, or in the weights' own dtype if that is wider: in half precision a decay above 0.99 would
    change nothing.

    Args:
        model: the network; parameters that it shares count once.
        decay: above 0, below 1.

    Source: Polyak & Juditsky (1992) for averaging; the warm-up is that of TensorFlow's
    ``tf.train.ExponentialMovingAverage(decay, num_updates)``, as documented.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(layer.weight)
        >>> average = Average(layer, decay=0.9)
        >>> _ = nn.init.ones_(layer.weight)
        >>> average.update(1)
        >>> round(float(average.state_dict()["weight"]), 4)  # d = 2 / 11
        0.8182
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
        self._averages = {name: _wide(p.detach()).clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Move the average towards the present weights.

        Args:
            number: optimizer steps done, this one included.
        """
        decay = min(self.decay, (1 + number) / (10 + number))
        weights = [_wide(weight.detach()) for weight in self._weights.values()]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1 - decay)

    @torch.no_grad()
    def write_to_model(self) -> None:
        """Put the averages in the place of the network's weights."""
        for name, weight in self._weights.items():
            weight.copy_(self._averages[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages, by parameter name."""
        return dict(self._averages)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up what :meth:`state_dict` returned."""
        for name, average in self._averages.items():
            average.copy_(state[name])


def _wide(weight: Tensor) -> Tensor:
    return weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight
