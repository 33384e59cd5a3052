"""Which of a network's outputs are the scores of classes, and how they become probabilities.

Taken is the first output of shape (images, classes) with at least two classes; (images, classes, 1, 1) counts
too. What ends with a softmax is a probability already; everything else is taken for logits.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.probe.class_scores import described_output, is_number_of_classes
from convscope.tape import Tape


@dataclass(frozen=True)
class ClassScores:
    """The output that holds the scores of classes.

    Attributes:
        value: in the tape.
        num_classes: its second axis.
        described: which output it is and how it becomes probabilities, in words.
        is_probability: whether it comes out of a softmax.
    """

    value: int
    num_classes: int
    described: str
    is_probability: bool

    def probabilities(self, scores: Tensor) -> Float[Tensor, "n classes"]:
        """Return the probabilities in float64."""
        flat = scores.reshape(len(scores), -1).double()
        return flat if self.is_probability else flat.softmax(1)

    def checked(self, label: int) -> int:
        """Return a class's number.

        Raises:
            ConvscopeError: the network has no such class.
        """
        is_whole = isinstance(label, int | torch.Tensor) and not isinstance(label, bool)
        if not is_whole or int(label) != label or not 0 <= int(label) < self.num_classes:
            raise ConvscopeError(
                f"class {label!r} of a network with {self.num_classes}",
                f"a whole number from 0 to {self.num_classes - 1}",
                "choose a class that it has, or leave it out for the predicted one",
            )
        return int(label)


def class_scores(tape: Tape) -> ClassScores | None:
    """Return which output holds the scores of classes; None if none does.

    Args:
        tape: of one run in evaluation mode.

    Example:
        >>> from torch import nn
        >>> from convscope.tape import record
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Softmax(1))
        >>> class_scores(record(net, (2, 3, 2, 2))).described
        'output 1 of 1, of shape (images, 5), which is a softmax already'
    """
    num_images = tape.values[tape.inputs[0]].shape[0]
    for place, value in enumerate(tape.outputs):
        shape, dtype = tape.values[value].shape, tape.values[value].dtype
        is_scores = len(shape) in (2, 4) and shape[0] == num_images and set(shape[2:]) <= {1}
        if not is_scores or not is_number_of_classes(shape[1]) or not dtype.is_floating_point:
            continue
        producer = tape.producer(value)
        is_probability = producer is not None and producer.op in ("_softmax", "_safe_softmax")
        how = "which is a softmax already" if is_probability else "through a softmax"
        described = f"{described_output(place, len(tape.outputs), shape[1])}, {how}"
        return ClassScores(value, shape[1], described, is_probability)
    return None


def no_classes(tape: Tape) -> ConvscopeError:
    """Return the error for a network none of whose outputs holds the scores of classes."""
    shapes = ", ".join(str(tape.values[value].shape) for value in tape.outputs) or "none"
    return ConvscopeError(
        f"a network whose outputs, of shapes {shapes}, aren't scores of at least two classes",
        "one of shape (images, classes)",
        "wrap it so that it returns the class scores, or name units to look at",
    )
