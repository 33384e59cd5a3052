"""What was left out of a set of pictures, and why, in words that are safe to print."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import UnidentifiedImageError

from convscope.core.errors import ConvscopeError
from convscope.core.printable import printable

FORMATS_MEANT = "PNG, JPEG, WebP, BMP or GIF"


@dataclass(frozen=True)
class Damage:
    """A file or class that was left out.

    Attributes:
        path: which; characters that can't be printed are written as escapes.
        reason: why, in a few words.
    """

    path: str
    reason: str

    def __post_init__(self) -> None:
        for field in ("path", "reason"):
            object.__setattr__(self, field, printable(getattr(self, field)))


def reason_of(error: Exception) -> str:
    """Return in a few words why a picture couldn't be read."""
    if isinstance(error, UnidentifiedImageError):
        return f"not a {FORMATS_MEANT} picture"
    if isinstance(error, OSError) and error.strerror:
        return f"can't be read ({error.strerror})"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def all_damaged(what: str, damaged: Sequence[Damage]) -> ConvscopeError:
    """Return the error for a set of which nothing could be read: it names the first three reasons."""
    first = "; ".join(f"{damage.path}: {damage.reason}" for damage in damaged[:3])
    more = f"; and {len(damaged) - 3:,} more" if len(damaged) > 3 else ""
    return ConvscopeError(
        f"{what}: none of {len(damaged):,} can be read ({first}{more})",
        f"whole {FORMATS_MEANT} pictures",
        "check the files",
    )
