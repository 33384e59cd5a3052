"""Days and times as pages write them."""

from datetime import datetime


def written_now() -> str:
    """Return this minute, with its time zone."""
    return datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z")
