"""The network's answer while images are transformed."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from convscope.core.errors import ConvscopeError
from convscope.sight.transforming.result import AnswerCurve, AnswerPoint
from convscope.sight.transforming.running import RunningMean
from convscope.sight.transforming.transformation import Kind, Transformation
from convscope.sight.units.classes import ClassScores
from convscope.sight.units.reading import Place


class Answers:
    """Gathers probabilities and most probable classes.

    Args:
        scores: the output that holds them.
        place: where it is read.
        steps: the transformations.
        labels: the class of each image, by its index; None: the untransformed image's most probable one.
    """

    def __init__(
        self,
        scores: ClassScores,
        place: Place,
        steps: dict[Kind, tuple[Transformation, ...]],
        labels: Sequence[int] | None,
    ) -> None:
        self.place = place
        self._scores, self._kinds, self._given = scores, steps, labels
        self._probability = {step: RunningMean() for of_kind in steps.values() for step in of_kind}
        self._unchanged = {step: RunningMean() for step in self._probability}
        self._labels = self._predicted = torch.empty(0, dtype=torch.int64)

    def start(self, tensor: Tensor, indices: list[int]) -> None:
        """Take in the answers for untransformed images."""
        self._predicted = self._scores.probabilities(tensor).argmax(1)
        self._labels = self._predicted
        if self._given is not None:
            if indices[-1] >= len(self._given):
                raise ConvscopeError(
                    f"{len(self._given)} labels, and an image of number {indices[-1]}",
                    "a label for every image",
                    "give as many labels as there are images",
                )
            labels = [self._scores.checked(int(self._given[index])) for index in indices]
            self._labels = torch.tensor(labels, device=tensor.device)

    def add(self, step: Transformation, tensor: Tensor) -> None:
        """Take in the answers for the same images after a transformation."""
        probabilities = self._scores.probabilities(tensor)
        self._probability[step].add(probabilities.gather(1, self._labels[:, None])[:, 0])
        self._unchanged[step].add((probabilities.argmax(1) == self._predicted).double())

    def result(self) -> tuple[AnswerCurve, ...]:
        """Return the curves."""
        return tuple(
            AnswerCurve(
                kind,
                tuple(
                    AnswerPoint(step.amount, self._probability[step].result(), self._unchanged[step].mean)
                    for step in steps
                ),
            )
            for kind, steps in self._kinds.items()
        )


def checked_labels(labels: Sequence[int] | None) -> Sequence[int] | None:
    """Return classes as whole numbers, whatever holds them; None stays None.

    Raises:
        ConvscopeError: they aren't several whole numbers.
    """
    if labels is None:
        return None
    given = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
    whole = isinstance(given, Sequence) and not isinstance(given, str)
    if not whole or not all(isinstance(each, Integral) and not isinstance(each, bool) for each in given):
        raise ConvscopeError(
            f"labels of type {type(labels).__name__}, not all of them whole numbers",
            "the number of its class, from 0, for every image",
            "give them in the images' order, or leave them out",
        )
    return [int(each) for each in given]
