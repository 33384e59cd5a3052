"""The tables of what folding leaves, from what was measured."""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from bench.clock import markdown
from bench.fold_compare import WRONG
from bench.fold_measure import OURS
from bench.fold_networks import NETWORKS
from bench.fold_peers import PEERS
from bench.fold_runs import Measurements

Entry = Mapping[str, Any]
Found = Mapping[str, Mapping[str, Entry]]
"""A flat entry for every way of folding and network: its numbers, or ``failure``."""

_HEADER = ("left", "%", "without any", "wrong", "fail", "median CPU seconds", "worst error")


def found_in(ours: Measurements, peers: Measurements) -> Found:
    """Return what was measured, ours with and without merging as two tools."""
    found: dict[str, Mapping[str, Entry]] = {}
    for mode, label in (("apart", "convscope, not merged"), ("merged", "convscope")):
        found[label] = {name: _flat(entry, mode) for name, entry in ours.of(OURS).items()}
    return found | {method: peers.of(method) for method in PEERS}


def _flat(entry: Entry, mode: str) -> Entry:
    return entry if "failure" in entry else {**entry, **entry[mode], "wrong": entry[mode]["error"] > WRONG}


def coverage(found: Found) -> str:
    """Return what every tool leaves of all networks; which are wrong and which fail."""
    rows = [
        _summary(label, entries)
        if len(entries) == len(NETWORKS)
        else (label, f"{len(entries)} measured", *("–" for _ in _HEADER))
        for label, entries in found.items()
    ]
    said = [
        _by_name(found, "Wrong", lambda entry: bool(entry.get("wrong"))),
        _by_name(found, "Failed", lambda entry: "failure" in entry),
        _by_name(found, "More operators than before", lambda entry: entry.get("added", 0) > 0),
        _by_name(found, "Another number of batch norms than in the reference", _counted_otherwise),
    ]
    return "\n\n".join([markdown(("tool", "networks", *_HEADER), rows), *filter(None, said)])


def _counted_otherwise(entry: Entry) -> bool:
    return entry.get("expected", entry.get("batch_norms")) != entry.get("batch_norms")


def _summary(label: str, entries: Mapping[str, Entry]) -> tuple[str, ...]:
    total = sum(NETWORKS[name].batch_norms for name in entries)
    left = sum(_left(name, entry) for name, entry in entries.items())
    right = [entry for entry in entries.values() if "failure" not in entry]
    errors = [entry["error"] for entry in right if "error" in entry and not entry["wrong"]]
    counts = (
        sum(entry["left"] == 0 for entry in right),
        sum(entry["wrong"] for entry in right),
        len(entries) - len(right),
    )
    seconds = _medians(right)
    worst = f"{max(errors):.1e}" if errors else "–"
    return (
        label, str(len(entries)), f"{left:,} of {total:,}", f"{100 * left / total:.1f}",
        *map(str, counts), seconds, worst,
    )  # fmt: skip


def _medians(entries: list[Entry]) -> str:
    """Median seconds; for ours without the proof, and with it in brackets."""
    if not entries:
        return "–"
    whole = f"{median(entry['seconds'] for entry in entries):.2f}"
    if "seconds_unproved" not in entries[0]:
        return whole
    return f"{median(entry['seconds_unproved'] for entry in entries):.2f} ({whole} with proof)"


def _left(name: str, entry: Entry) -> int:
    return NETWORKS[name].batch_norms if "failure" in entry else int(entry["left"])


def _by_name(found: Found, title: str, holds: Callable[[Entry], bool]) -> str:
    """Name the networks on which something is so, by tool."""
    parts = []
    for label, entries in found.items():
        names = [name for name in NETWORKS if name in entries and holds(entries[name])]
        if names:
            parts.append(f"{label}: {', '.join(names)}")
    return f"{title} – {'; '.join(parts)}." if parts else ""


def per_network(found: Found) -> str:
    """Return what is left of every network by every tool."""
    found = {label: entries for label, entries in found.items() if entries}
    rows = [
        (
            name,
            str(network.batch_norms),
            str(network.floor),
            *(_cell(found[label].get(name)) for label in found),
        )
        for name, network in NETWORKS.items()
    ]
    return markdown(("left of", "batch norms", "reference", *found), rows)


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return "–"
    if "failure" in entry:
        return "fails"
    return f"**{entry['left']} wrong**" if entry["wrong"] else str(entry["left"])
