"""What a run will take, in words: for the terminal, before a run's first step and after a few."""

import time

from rich.console import RenderableType

from convscope.core.result import renders
from convscope.core.units import format_bytes
from convscope.report.terminal.tables import facts, sections, title
from convscope.train.telling.forecast import Forecast


@renders(Forecast)
def render_forecast(forecast: Forecast) -> RenderableType:
    """Return what a run will take: memory, disk, and time where it is known."""
    shown = [("memory", memory_words(forecast)), ("disk", format_bytes(forecast.disk_bytes))]
    if forecast.scores:
        shown.append(("trained", f"{forecast.scores}, as class scores"))
    if forecast.seconds_per_step is not None:
        shown.append(("time", time_words(forecast)))
    return sections(title(f"Forecast of {forecast.steps:,} steps on {forecast.device}"), facts(shown))


def memory_words(forecast: Forecast) -> str:
    """Return a run's memory in one line."""
    if forecast.peak_bytes is None:
        return f"not simulated: {forecast.not_forecast}"
    available = forecast.available_bytes
    there = "what is available isn't known" if available is None else f"{format_bytes(available)} available"
    words = f"{format_bytes(forecast.peak_bytes)} at {forecast.images_per_pass} images at a time, {there}"
    advice = {
        "tight": ": tight; a smaller batch_size or a larger accumulation leaves room",
        "no": ": it doesn't fit",
    }
    return words + advice.get(forecast.fits, "")


def time_words(forecast: Forecast, now: float | None = None) -> str:
    """Return a run's time in one line; empty where it isn't known yet.

    Args:
        forecast: of the run.
        now: seconds since the epoch; None: the present.
    """
    if forecast.seconds_per_epoch is None or forecast.seconds_left is None or forecast.seconds_total is None:
        return ""
    now = time.time() if now is None else now
    end = time.localtime(now + forecast.seconds_left)
    days = (end.tm_year, end.tm_yday) != time.localtime(now)[:1] + time.localtime(now)[7:8]
    until = time.strftime("%a %d %b, %H:%M" if days else "%H:%M", end)
    each, whole = rough(forecast.seconds_per_epoch), rough(forecast.seconds_total)
    return f"about {each} an epoch, {whole} in all, until {until}"


def rough(value: float) -> str:
    """Return a duration as people say it: the unit that suits it, no more than its parts of a whole.

    Example:
        >>> rough(0.42), rough(42.3), rough(125), rough(5400), rough(93_000)
        ('0.4 s', '42 s', '2 min', '1.5 h', '26 h')
    """
    if value < 60:
        return f"{value:.{0 if value >= 9.95 else 1}f} s"
    if value < 5400:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.{0 if value >= 36_000 else 1}f} h"
