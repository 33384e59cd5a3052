"""The images of a run, as its settings want them: varied for training, cut for evaluation."""

from functools import cached_property

from convscope.data.colour_noise import ColourNoise
from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import ImageSets, SeededImages
from convscope.train.feeding.variation import Variation, colour_noise_of, evaluation_window
from convscope.train.feeding.workers import Workers


class Feed:
    """Both splits of a run's data.

    Statistics that a variation needs are measured once, when the first training images are asked for; they
    follow from the data alone. Loading processes are shared by all images of the feed, and end with the last
    of them.

    Args:
        data: the images.
        config: says how they are varied and cut.
    """

    def __init__(self, data: ImageSets, config: TrainConfig) -> None:
        self._prepared = _Prepared(data, config)
        self._workers = Workers(self._prepared.splits)

    def images(self, split: str, epoch: int = 0) -> SeededImages:
        """Return the images of a split as of an epoch.

        Args:
            split: ``"train"``, varied, or ``"validation"``, cut.
            epoch: of the variations, from 0.

        Raises:
            ConvscopeError: the data lacks the pixels that the colour noise is measured on.
        """
        images = self._prepared.split(split).at(epoch)
        images.workers = self._workers
        return images


class _Prepared:
    """The splits without their workers, which hold it: both are gone as soon as nobody needs them."""

    def __init__(self, data: ImageSets, config: TrainConfig) -> None:
        self.data = data
        self.config = config
        self.mirrors = bool(getattr(data, "mirrors", False))

    def splits(self) -> dict[str, SeededImages]:
        return {split: self.split(split) for split in ("train", "validation")}

    def split(self, name: str) -> SeededImages:
        augment = self.variation() if name == "train" else evaluation_window(self.config)
        pictures, num_classes = getattr(self.data, name), len(self.data.classes)
        images = SeededImages(pictures, name, num_classes, self.config.seed, augment=augment)
        images.mirrors = self.mirrors
        return images

    def variation(self) -> Variation | None:
        config = self.config
        if config.augment == "none" and config.crop is None:
            return None
        noise = self.noise if config.augment == "crop-colour" else None
        return Variation(config.augment, config.crop, self.mirrors, noise)

    @cached_property
    def noise(self) -> ColourNoise:
        return colour_noise_of(self.data.train)
