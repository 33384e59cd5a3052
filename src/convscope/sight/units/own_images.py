"""Whether what layers show of an image depends on that image alone."""

from collections.abc import Collection

from convscope.core.errors import ConvscopeError
from convscope.sight.projecting.below import Below


def require_own_images(below: Below, values: Collection[int]) -> None:
    """Refuse values that depend on the other images of a batch.

    Args:
        below: what lies below the values of a run.
        values: of the run.

    Raises:
        ConvscopeError: a normalisation on the way to one takes the batch's own statistics.
    """
    norm = next((call for value in values if (call := below.batch_statistics(value)) is not None), None)
    if norm is not None:
        raise ConvscopeError(
            f"{norm.address}, which normalises by the statistics of a whole batch, in evaluation too",
            "a network whose result for an image doesn't depend on the others",
            "give it running statistics (track_running_stats=True), or choose layers before it",
        )
