"""The pages about faults as HTML, for the findings of a check-up that have one."""

from collections.abc import Iterable
from functools import cache

from markdown_it import MarkdownIt
from markupsafe import Markup

from convscope.checkup.explain import page_of
from convscope.core.finding import Finding


def fault_pages(findings: Iterable[Finding]) -> list[tuple[str, Markup]]:
    """Return the fault and its page's body for each kind of finding that has one, in order."""
    faults = dict.fromkeys(finding.fault for finding in findings if finding.page)
    return [(fault, _html(fault)) for fault in faults]


@cache
def _html(fault: str) -> Markup:
    """A page without its title; mark-up and links in it stay text."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "autolink", "image", "html_block", "html_inline"])
    _, _, body = page_of(fault).partition("\n")
    html = parser.render(body).replace("<h2>", "<h4>").replace("</h2>", "</h4>")
    return Markup(html)
