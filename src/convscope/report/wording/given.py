"""What a check-up was made of, in sentences."""

from collections.abc import Iterator

from convscope.checkup.given import Given, Images
from convscope.checkup.result import Checkup
from convscope.report.wording.formats import counted, exact, shape


def given_facts(checkup: Checkup) -> Iterator[tuple[str, str]]:
    """Yield names and sentences: the network and its weights, the images read, and how they became inputs."""
    given = checkup.given
    if given is None:
        return
    yield "network", given.network
    fresh = f"none given: as the network was built, with seed {given.seed}"
    yield "weights", fresh if given.weights is None else given.weights
    if given.images is not None:
        yield "data", _read(given.images, checkup.num_samples)
        yield "images", _prepared(given, given.images)


def _read(images: Images, num_samples: int) -> str:
    told = f"{images.name}: {exact(num_samples)} of its {counted(images.num_read, 'training images')}"
    told += f", shuffled, in batches of {exact(images.batch_size)}"
    if images.num_kept_back:
        told += f"; {exact(images.num_kept_back)} more, for validation, aren't read"
    return f"{told}; classes {images.labels}" if images.labels else told


def _prepared(given: Given, images: Images) -> str:
    size = f"{shape(given.input_shape)}, " if given.input_shape else ""
    told = (
        f"{size}shorter side resized and centre cut out; mean {_numbers(images.mean)}, standard deviation "
        f"{_numbers(images.std)} on a scale of 0 to 1, {images.normalised_by}"
    )
    if images.is_own:
        told += (
            ". If the network was trained with others, statistics seem stale that aren't: "
            "give those with --mean and --std"
        )
    return told


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
