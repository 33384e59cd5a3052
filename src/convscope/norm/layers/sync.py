"""Batch normalisation by the statistics of a batch that several processes share.

With a few samples on each of many accelerators, batch norm on each alone has too few values for its
statistics. Here mean and variance are those of the whole batch, as if one process held it.
"""

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, distributed
from torch._subclasses import FakeTensor

from convscope.core.errors import ConvscopeError
from convscope.norm.engine.exchange import ProcessExchange
from convscope.norm.layers.batch import BatchLayer
from convscope.norm.layers.checks import check_channels, check_floating, masked
from convscope.norm.naming import named


class SyncBatchNorm(BatchLayer):
    """Synchronised batch normalisation of (N, C, …), of any rank: ``torch.nn.SyncBatchNorm`` in every name.

    In training, the processes of a group pool count, mean and squared distances of their shares by Chan's
    formula in float64, and their gradients' sums in the backward pass. Outputs, gradients and running
    averages are those that one process would have with the whole batch in one
    :class:`~convscope.norm.BatchNorm2d`; running averages have the same bits on every process. Shares may
    be unequal; a process without samples takes part too. It needs one exchange forwards (two for more
    than 1,024 channels in float32) and one backwards.

    In ``eval()``, without ``torch.distributed`` in use, and in a group of one process it is plain batch norm
    and exchanges nothing. Simulated tensors are never exchanged: a recording made by one process is that of
    one process.

    Args:
        num_features: C.
        eps: ε, 1e-5.
        momentum: weight of the new value in the running averages; None for the average of all batches.
        affine: whether to learn γ and β.
        track_running_stats: whether to keep running averages.
        process_group: who shares statistics; None for all processes. A process must be a member.
        device: where parameters and buffers live, served by the group's backend (CPUs by gloo, say).
        dtype: the parameters' dtype; the running averages stay in float32 or wider.
        options: ``warm_start``, as in :class:`~convscope.norm.BatchNorm2d`; ``bias``, as in PyTorch.

    Under ``DistributedDataParallel`` it means what PyTorch's layer means. The input's gradient is that of the
    sum of all processes' losses. γ's and β's are this process's part of it: their sum over processes is the
    whole batch's gradient, and DDP divides it by the number of processes, as it does with all parameters. So
    losses that are means over shares of one size give the gradients of the mean over the whole batch.

    It differs from PyTorch 2.13's layer as follows. It runs on CPUs, in DDP too, which refuses subclasses of
    PyTorch's layer there: hence it is none (``convscope.norm.convert`` turns one into the other). It takes a
    mask, differentiates twice, and moves no running averages when a checkpointed block runs again.
    Processes that disagree get an error, all of them.

    Every process must run the layer in the same mode, order and number, and so backwards: a process without
    samples computes a loss from its empty output too, such as its sum. Otherwise the others wait until the
    group's timeout, which raises an error with the layer's name where the backend raises one. Deep copies
    share the process group; a layer with a group of its own can't be pickled, as PyTorch's can't.

    Raises:
        ConvscopeError: as for batch norm, on the process with the bad input and on all others; fewer than two
            values for a channel on all processes together; other channels, dtypes or gradients on another
            process; a process that isn't a member of the group.

    Source:
        Peng et al., "MegDet: A Large Mini-Batch Object Detector", arXiv 1711.07240 (cross-GPU batch
        normalisation); Chan's formula as in ``merging``, gradients as in ``function``.

    Not covered: ``torch.jit.script``, forward-mode differentiation, CUDA graphs. ``torch.compile`` runs the
    layer eagerly between two graphs while it exchanges, so not with ``fullgraph=True``.

    Example:
        >>> layer = SyncBatchNorm(3)
        >>> _ = layer.load_state_dict(torch.nn.SyncBatchNorm(3).state_dict())
        >>> layer(torch.randn(8, 3, 5, 4)).std(dim=(0, 2, 3), correction=0).round(decimals=3).tolist()
        [1.0, 1.0, 1.0]
    """

    process_group: Any = None

    def __init__(  # PyTorch's arguments
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: bool,
    ) -> None:
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **kind, **options)
        self.process_group = process_group

    def forward(
        self, x: Float[Tensor, "n c *s"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "n c *s"]:
        """Return this process's share of the normalised batch; see :meth:`BatchLayer.forward`.

        Args:
            x: this process's share of the batch; N may be 0.
            mask: True where a value counts; it may leave nothing of a share, if another process has values.
        """
        if self._by_running() or not self._takes_part(x):
            return super().forward(x, mask)
        run: Callable[..., Tensor] = self._with_others
        if torch.compiler.is_compiling():  # messages are read: nothing to compile
            run = torch.compiler.disable(run)  # type: ignore[no-untyped-call]
        return run(x, mask)

    def _with_others(self, x: Tensor, mask: Tensor | None) -> Tensor:
        try:
            self._check_input_dim(x)
            mask = masked(self, x, mask, alone=False)
        except ConvscopeError:
            self._meeting(x).refuse(x.device)
            raise
        return self._by_batch(x, mask)

    def _takes_part(self, x: Tensor) -> bool:
        """Whether this batch is shared with other processes."""
        in_use = distributed.is_available() and distributed.is_initialized()
        if not (self.training and in_use) or isinstance(x, FakeTensor) or x.is_meta:
            return False
        num_processes = distributed.get_world_size(self.process_group)
        if num_processes < 1:
            raise ConvscopeError(
                f"{named(self)} with a process group that this process isn't a member of",
                "a group of which it is one",
                "call new_group for every group on every process, and give each process its own",
            )
        return num_processes > 1

    def _exchange(self, x: Tensor) -> ProcessExchange | None:
        return self._meeting(x) if self._takes_part(x) else None

    def _meeting(self, x: Tensor) -> ProcessExchange:
        learnt = (parameter for parameter in (x, self.weight, self.bias) if parameter is not None)
        differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in learnt)
        return ProcessExchange(self, self.process_group, differentiated, x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ConvscopeError(
                f"{named(self)} given an input of shape {tuple(input.shape)}",
                "shape (N, C) or (N, C, …)",
                "reshape the input",
            )
        check_channels(self, input, self.num_features)
        check_floating(self, input)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self.process_group)] = self.process_group
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(self.__dict__, memo))  # type: ignore[no-untyped-call]
        return copied
