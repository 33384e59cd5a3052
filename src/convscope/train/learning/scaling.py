"""The scale of the loss in float16, and the steps that its overflows cost.

Gradients below 6e-8 are zero in float16, so the loss is multiplied by a factor first and the gradients are
divided by it afterwards. PyTorch's ``GradScaler`` looks for the largest factor that doesn't overflow: it is
halved when a gradient is infinite or NaN (that step is skipped), and doubled after 2,000 steps without.
"""

import torch
from torch import Tensor


class Scaling:
    """A ``torch.amp.GradScaler`` of a run, with a count of skipped steps, as tensors for a checkpoint.

    Nothing here waits for the device if the optimizer is fused: whether a step is skipped is decided there.

    Args:
        device: where the network is.

    Source: Micikevicius et al., Mixed Precision Training, arXiv 1710.03740, section 3.2.

    Example:
        >>> scaling = Scaling(torch.device("cpu"))
        >>> float(scaling.scaled(torch.tensor(2.0))), scaling.num_skipped
        (131072.0, 0)
    """

    def __init__(self, device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type)
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def num_skipped(self) -> int:
        """Steps that were skipped so far; reading it waits for the device."""
        return int(self._skipped)

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss times the scale."""
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, and find out whether they are finite."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step unless a gradient isn't finite, and adapt the scale."""
        scale = self._scaler._scale
        assert scale is not None  # since the first call of scaled
        before = scale.clone()
        self._scaler.step(optimizer)
        self._scaler.update()
        self._skipped += (scale < before).reshape(())

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        state = self._scaler.state_dict()
        return {
            "scale": torch.tensor(state["scale"], dtype=torch.float32),
            "steps_since_overflow": torch.tensor(state["_growth_tracker"], dtype=torch.int64),
            "skipped": self._skipped.detach().cpu(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self._scaler.load_state_dict(
            {
                **self._scaler.state_dict(),
                "scale": float(state["scale"]),
                "_growth_tracker": int(state["steps_since_overflow"]),
            }
        )
        self._skipped.copy_(state["skipped"])
