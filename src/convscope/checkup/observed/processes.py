"""What the processes of a distributed run show beside one another."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProcessFacts:
    """The processes of ``torch.distributed``'s default group.

    Attributes:
        count: how many there are.
        broadcast_buffers: what DistributedDataParallel was told (``forward_sync_buffers`` from PyTorch 2.13
            on); None without that wrapper.
        disagreements: by path of the batch norm whose running statistics aren't the same in all processes:
            largest differences between two of them, in standard deviations (means) and as a logarithm
            (variances).
        compared: whether every process took part, so that there was something to compare.
    """

    count: int
    broadcast_buffers: bool | None = None
    disagreements: dict[str, tuple[float, float]] = field(default_factory=dict)
    compared: bool = True
