"""What ``convscope checkup`` runs the network on: labelled batches, and a record of what they are."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from convscope.cli.images import NormalisationOptions, data_for, is_known
from convscope.cli.show import note

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.checkup import Checkup
    from convscope.checkup.given import Images
    from convscope.data import ImageData
    from convscope.networks import Loaded

_IN_ORDER = "numbered in the order of their names (--classes FILE gives the network's own order)"

_WHICH_LOGITS = "let the network return them as 'logits', or as its only output"


@dataclass(frozen=True)
class CheckupImages:
    """What a network is checked on.

    Attributes:
        data: batches, or the inputs' shape; None where that isn't one.
        facts: of the images; None without them.
        no_labels: why the images have no labels; empty if they have.
    """

    data: Any
    facts: "Images | None" = None
    no_labels: str = ""

    def told(self, found: "Checkup") -> "Checkup":
        """Return a check-up that says why there was no gap to measure in the words of the command line."""
        from convscope.checkup.measuring.criterion import WHICH_LOGITS

        notes = (
            replace(each, reason=self.no_labels or each.reason.replace(WHICH_LOGITS, _WHICH_LOGITS))
            if "gap" in each.what and "labels" in each.reason
            else each
            for each in found.unchecked
        )
        return replace(found, unchecked=tuple(notes))


def checkup_images(
    loaded: "Loaded", data: str | None, batch_size: int, stated: NormalisationOptions
) -> CheckupImages:
    """Return the batches that a network is checked on, or its inputs' shape without data.

    Args:
        loaded: the network.
        data: the name of a data set or a folder; None for none.
        batch_size: images a batch.
        stated: mean and deviation, where they were given.

    Raises:
        ConvscopeError: there is no such data, or mean and deviation don't fit it.
    """
    if data is None:
        shape = getattr(loaded.inputs, "shape", loaded.inputs)
        is_shape = isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)
        return CheckupImages(tuple(shape) if is_shape else None)
    images = data_for(loaded, data, stated)
    if len(images.train) < batch_size:
        note(f"fewer images than a batch of {batch_size:,}: one batch of {len(images.train):,}")
    numbers = _numbers(loaded, images)
    no_labels, known = (numbers, None) if isinstance(numbers, str) else ("", numbers)
    batches = _Labelled(images.batches("train", batch_size), known, _num_classes(loaded, images, known))
    facts = _facts(loaded, images, batch_size, stated.is_given)
    labels = "" if known is None else "by the network's class names" if loaded.class_names else _IN_ORDER
    return CheckupImages(batches, replace(facts, labels=labels), no_labels)


def _facts(loaded: "Loaded", images: "ImageData", batch_size: int, is_stated: bool) -> "Images":
    from convscope.checkup.given import Images

    is_own = not is_stated and not is_known(loaded)
    return Images(
        name=images.name,
        num_read=len(images.train),
        num_kept_back=len(images.validation),
        batch_size=min(batch_size, len(images.train)),
        mean=images.mean,
        std=images.std,
        normalised_by="as --mean and --std say"
        if is_stated
        else "those of the images themselves"
        if is_own
        else f"by {loaded.preprocessing.source}"
        if loaded.preprocessing is not None
        else "",
        is_own=is_own,
    )


@dataclass(frozen=True)
class _Labelled:
    """Batches of images, with the network's own numbers of their classes.

    Attributes:
        batches: images and the data's labels.
        numbers: the network's number of each of the data's classes; None if these aren't its classes.
        num_classes: of the network, by which the output with their scores is known; None if it isn't.
    """

    batches: Any
    numbers: "Tensor | None"
    num_classes: int | None

    @property
    def generator(self) -> Any:
        """What the loader shuffles by, so that each reading can shuffle alike."""
        return self.batches.generator

    def __iter__(self) -> Iterator[Any]:
        for images, labels in self.batches:
            yield images if self.numbers is None else (images, self.numbers[labels])

    def __len__(self) -> int:
        return len(self.batches)


def _numbers(loaded: "Loaded", images: "ImageData") -> "Tensor | str":
    """The network's number of each class of the data, or why it can't be told."""
    import torch

    from convscope.data.folder import UNLABELLED
    from convscope.probe.class_scores import other_widths

    names, classes = loaded.class_names, images.classes
    if classes == (UNLABELLED,):
        return "the pictures have no classes: a subfolder for each of the network's gives labels"
    if names and set(classes) <= set(names):
        return torch.tensor([list(names).index(name) for name in classes])
    if names:
        strange = sorted(set(classes) - set(names))
        return (
            f"the data's classes aren't those of the network: {strange[0]!r} isn't one of its "
            f"{len(names)} names; --classes FILE gives others"
        )
    widths = _widths(loaded)
    if len(classes) > 1 and len(classes) in widths:
        return torch.arange(len(classes))
    gives = other_widths(widths, len(classes))
    gives = f"{gives} scores an image" if gives else "no output that may be scores (images, classes)"
    return (
        f"the data's classes aren't those of the network: the data has {len(classes)}, the network gives "
        f"{gives}; --classes FILE names them"
    )


def _num_classes(loaded: "Loaded", images: "ImageData", known: "Tensor | None") -> int | None:
    """How many classes the network has, if one of its outputs is as wide as its names or the data's."""
    number = len(loaded.class_names or images.classes)
    return number if known is not None and number in _widths(loaded) else None


def _widths(loaded: "Loaded") -> list[int]:
    """The numbers of scores that the network's outputs may be, in order."""
    from convscope.probe.class_scores import is_number_of_classes
    from convscope.tape import record

    tape = record(loaded.model, loaded.inputs)
    shapes = [tape.values[value].shape for value in tape.outputs]
    return [int(shape[1]) for shape in shapes if len(shape) == 2 and is_number_of_classes(shape[1])]
