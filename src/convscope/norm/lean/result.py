"""What a lean forward pass saved for its backward pass, and what it would have."""

from dataclasses import dataclass

from convscope.core.result import Result


@dataclass(frozen=True)
class LeanLayer:
    """What autograd saves while one module runs.

    Attributes:
        path: the module's first path in the network; ``""`` for the network's own code.
        bytes_without: of the storages that it saves first, without lean batch norm.
        bytes_kept: of those that are kept with it, and of what is kept in place of the others.
    """

    path: str
    bytes_without: int
    bytes_kept: int


@dataclass(frozen=True)
class Savings(Result):
    """What a lean network's last forward pass had autograd save, as measured, without parameters and buffers.

    Every storage counts once, with its whole size, at the first module that saves it.

    Attributes:
        layers: in the order in which they first save something.
        bytes_without: that autograd would have saved.
        bytes_kept: that are kept.
    """

    layers: tuple[LeanLayer, ...]
    bytes_without: int
    bytes_kept: int

    @property
    def share(self) -> float:
        """Bytes kept over bytes without; 1 for a pass that saves nothing."""
        return self.bytes_kept / self.bytes_without if self.bytes_without else 1.0
