"""The graph on the page of a report: its scripts, and what the other readings found at its nodes."""

from collections.abc import Iterable, Mapping
from typing import Any

from convscope.report.graph.network import NetworkGraph
from convscope.report.pages.offline import scoped_script, static_text
from convscope.report.whole.result import Report

LAYOUT = "dagre.min.js"
_SCRIPTS = ("measures", "view", "layout", "drawing", "links", "details", "keys", "graph")
_MOST_LISTED = 300
_SELF = ("", "self", "self#1")


def graph_scripts() -> list[str]:
    """Return the scripts that lay the graph out and draw it."""
    return [static_text(LAYOUT), scoped_script(["words.js", *(f"graph/{name}.js" for name in _SCRIPTS)])]


def graph_styles() -> str:
    """Return the styles of the graph."""
    return static_text("graph/graph.css")


def graph_marks(report: Report) -> dict[str, Mapping[int, list[int]]]:
    """Return what other readings say about each node, a group's being that of all in it.

    ``findings``: positions among the check-up's findings; ``norms``: among its batch norms; ``sight``: among
    the gallery's layers. What is about the whole network is at no node.
    """
    checkup, gallery, graph = report.checkup, report.gallery, report.graph
    if graph is None:
        return {}
    return {
        "findings": _at_nodes(graph, [each.address for each in checkup.findings] if checkup else []),
        "norms": _at_nodes(graph, [each.address for each in checkup.layers] if checkup else []),
        "sight": _at_nodes(graph, [each.address for each in gallery.layers] if gallery else []),
    }


def listed(graph: NetworkGraph) -> dict[int, list[int]]:
    """Return the nodes of the list without JavaScript, by group; only groups where nodes are many.

    The cost table has the layers either way, and a page is to stay small.
    """
    children = graph.children()
    if len(graph.nodes) <= _MOST_LISTED:
        return children
    return {group: [each for each in inside if each in children] for group, inside in children.items()}


def _at_nodes(graph: NetworkGraph, addresses: Iterable[str]) -> dict[int, list[int]]:
    """By node, the positions of the addresses that lie at it or in it."""
    nodes = {node.address: position for position, node in enumerate(graph.nodes)}
    found: dict[int, list[int]] = {}
    for number, address in enumerate(addresses):
        if address in _SELF:
            continue
        module = address.rpartition(":")[0]  # an operator in a layer that is a module's whole call
        names = (address, f"{address}#1", module)
        node = next((nodes[name] for name in names if name in nodes), -1)
        while node >= 0:
            found.setdefault(node, []).append(number)
            node = graph.nodes[node].parent
    return found


def graph_of_page(report: Report) -> dict[str, Any]:
    """Return what the page's template needs of the graph beside the page's data."""
    graph = report.graph
    return {"marks": graph_marks(report), "children": listed(graph) if graph else {}}
