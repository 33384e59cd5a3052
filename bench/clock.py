"""Interleaved timing of competitors, so that a noisy machine disturbs them alike."""

import gc
import time
from collections.abc import Callable, Mapping
from statistics import median


def interleaved(competitors: Mapping[str, Callable[[], object]], rounds: int = 9) -> dict[str, float]:
    """Return the median seconds of one call of each competitor, called in turn, after one warm-up call."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for competitor in competitors.values():
        competitor()
    for _ in range(rounds):
        for name, competitor in competitors.items():
            gc.collect()
            started = time.perf_counter()
            competitor()
            seconds[name].append(time.perf_counter() - started)
    return {name: median(taken) for name, taken in seconds.items()}


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
