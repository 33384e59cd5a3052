"""Flags that say how a training step is made."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import Parameter

from convscope.cli.options import NetworkOptions
from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest

if TYPE_CHECKING:
    from convscope.networks import Loaded
    from convscope.tape import TrainingPlan


@Parameter(name="*")
@dataclass(frozen=True)
class TrainedNetworkOptions(NetworkOptions):
    """How a network is built and fed of which a training step is read.

    Attributes:
        lean: Lean batch norm: activations that what batch norm saves gives again aren't saved.
    """

    lean: Annotated[bool, Parameter(negative="")] = False

    def load(self, reference: str, **defaults: object) -> "Loaded":
        """Return the network that the words name, lean if it shall be; see :meth:`NetworkOptions.load`."""
        loaded = super().load(reference, **defaults)
        if self.lean:
            from convscope.norm import lean

            lean(loaded.model)
        return loaded


@Parameter(name="*")
@dataclass(frozen=True)
class PlanOptions:
    """The step that is read.

    Attributes:
        optimizer: Of the training step: sgd, sgd-momentum, adam, adamw or rmsprop.
        precision: Of the training step: fp32, amp-fp16, amp-bf16 (autocast) or bf16 (everything).
        foreach: The optimizer's kernels: over many tensors at once (PyTorch's default on GPUs),
            --no-foreach for one after the other, or --foreach fused.
        clip_grad_norm: Clip the gradients' norm to this before the optimizer's step.
        keep_gradients: Gradients are set to zero, not to None, so that they stay allocated.
        channels_last: Parameters and inputs with four axes lie in channels_last order.
        inference: A forward pass without gradients in place of a training step.
    """

    optimizer: str = "sgd-momentum"
    precision: str = "fp32"
    foreach: Annotated[Literal["fused"] | bool, Parameter(negative="--no-foreach")] = True
    clip_grad_norm: float | None = None
    keep_gradients: Annotated[bool, Parameter(negative="")] = False
    channels_last: Annotated[bool, Parameter(negative="")] = False
    inference: Annotated[bool, Parameter(negative="")] = False

    @property
    def given(self) -> list[str]:
        """The flags of a training step that say anything but their defaults."""
        changed = [field for field in fields(self) if getattr(self, field.name) != field.default]
        names = [
            "no-foreach" if field.name == "foreach" and not self.foreach else field.name for field in changed
        ]
        return [f"--{name.replace('_', '-')}" for name in names if name != "inference"]

    def plan(self, options: TrainedNetworkOptions) -> "TrainingPlan | None":
        """Return the plan; None for inference.

        Args:
            options: of the network whose step it is.

        Raises:
            ConvscopeError: a word isn't one of those above, or what only a training step has was given
                together with ``inference``.
        """
        given = [*self.given, *(["--lean"] if options.lean else [])]
        if self.inference and given:
            raise ConvscopeError(
                f"{', '.join(given)} with --inference",
                "flags that go together",
                "leave one of them out; they are of a training step",
            )
        from convscope.tape import TrainingPlan
        from convscope.tape.plan import Optimizer, Precision

        for name, known in (("optimizer", get_args(Optimizer)), ("precision", get_args(Precision))):
            if getattr(self, name) not in known:
                raise ConvscopeError(
                    f"--{name} {getattr(self, name)}",
                    f"one of {', '.join(known)}",
                    nearest(getattr(self, name), known, "choose one of them"),
                )
        plan = TrainingPlan(
            self.optimizer,  # type: ignore[arg-type]
            self.precision,  # type: ignore[arg-type]
            self.foreach,
            zero_grad_set_to_none=not self.keep_gradients,
            clip_grad_norm=self.clip_grad_norm,
            channels_last=self.channels_last,
        )
        return None if self.inference else plan
