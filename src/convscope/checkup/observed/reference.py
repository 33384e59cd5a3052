"""What a model is compared with: the network that it was made from, or a checkpoint."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from convscope.checkup.unchecked import Unchecked


@dataclass(frozen=True, eq=False)
class ReferenceNorm:
    """The layer of the reference at the path of a batch norm, or of what has replaced one.

    Attributes:
        path: of the model's layer.
        kind: class of the reference's layer, as ``"torch.nn.BatchNorm2d"``; empty for a checkpoint.
        own_kind: class of the model's layer.
        lost: what the reference's layer has and the model's hasn't: submodules, tensors, and a ``forward`` of
            its own.
        regrouped: whether a batch norm has become a group norm.
        removed: whether it has become an identity; it may have been folded into its neighbour.
        eps: the reference's ε; None for a checkpoint.
        same_statistics: whether running mean and variance are bit-identical; None where either has none.
        same_affine: whether γ and β are bit-identical; None where either has none.
        running_mean, running_variance: of the reference, float64 on the CPU.
        num_batches_tracked: of the reference.
    """

    path: str
    kind: str
    own_kind: str
    lost: tuple[str, ...] = ()
    regrouped: bool = False
    removed: bool = False
    eps: float | None = None
    same_statistics: bool | None = None
    same_affine: bool | None = None
    running_mean: Tensor | None = None
    running_variance: Tensor | None = None
    num_batches_tracked: float | None = None


@dataclass(frozen=True, eq=False)
class ReferenceFacts:
    """The model beside its reference.

    Attributes:
        source: a network or a checkpoint.
        norms: by path.
        same_parameters: whether all parameters that both have are bit-identical.
        missing: names of running statistics that the checkpoint lacks and the model has.
        output_difference: largest |difference| of the outputs in evaluation mode over the outputs' standard
            deviation; None without inputs, or if either doesn't run.
        layer_differences: the same for single layers, by path, on random inputs of the mean and variance
            that the reference's layer expects. The model's layer has the reference's tensors and ε for that,
            so that this is what its code makes different. Not for group norms, which are meant to differ.
        rounding: differences up to this could be rounding, at the precision that both compute in.
        unchecked: what could not be compared, and why.
    """

    source: Literal["network", "checkpoint"]
    norms: dict[str, ReferenceNorm] = field(default_factory=dict)
    same_parameters: bool = False
    missing: tuple[str, ...] = ()
    output_difference: float | None = None
    layer_differences: dict[str, float] = field(default_factory=dict)
    rounding: float = 1e-3
    unchecked: tuple[Unchecked, ...] = ()
