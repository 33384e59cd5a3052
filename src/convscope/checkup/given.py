"""What a check-up was made of, so that its numbers can be had again."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Images:
    """Pictures that a network was checked on, and how they were made its inputs.

    Attributes:
        name: the data set's name or folder, as it was given.
        num_read: images of the split that is read; full batches of them are.
        num_kept_back: images of the other split, which is for validation.
        batch_size: images a batch.
        mean: of each channel, on a scale of 0 to 1, which was taken away.
        std: of each channel, on the same scale, by which was divided.
        normalised_by: whose mean and deviation these are.
        is_own: whether they are those of the images themselves, since nobody says how the network's were.
        labels: how the classes got their numbers; empty without labels.
    """

    name: str
    num_read: int
    num_kept_back: int
    batch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalised_by: str
    is_own: bool
    labels: str = ""


@dataclass(frozen=True)
class Given:
    """What a check-up was made of, where it is known, as on the command line.

    Attributes:
        network: its reference.
        weights: the file that they are from; None for a network as it was built.
        seed: of the global generator before the network was built.
        input_shape: of one input, without the batch; None where the network brings inputs of its own.
        images: None without data.
    """

    network: str
    weights: str | None
    seed: int
    input_shape: tuple[int, ...] | None
    images: Images | None = None
