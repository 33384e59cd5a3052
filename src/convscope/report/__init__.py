"""The whole anatomy of one network on one page, and how every result looks in a terminal.

:func:`report` runs all readings on one network and writes a page that opens offline; ``Report`` is what it
found. :mod:`convscope.report.terminal` registers the terminal rendering of every result.

Limits: one network at a time; image classifiers for what needs data; the page is for reading, the JSON of
the results for programs.
"""

from convscope.core.callable_room import make_callable
from convscope.report.pages.checkup import check_page, write_checkup
from convscope.report.pages.gallery_comparison import write_gallery_comparison
from convscope.report.pages.report import page_html, write_page
from convscope.report.side_by_side.pair import ReportPair, report_pair
from convscope.report.whole.collect import report
from convscope.report.whole.norm_effect import NormEffect
from convscope.report.whole.ranking import RankedFinding, rank
from convscope.report.whole.request import ReportConfig, Stage, Watcher
from convscope.report.whole.result import Part, Report, Subject

__all__ = [
    "NormEffect",
    "Part",
    "RankedFinding",
    "Report",
    "ReportConfig",
    "ReportPair",
    "Stage",
    "Subject",
    "Watcher",
    "check_page",
    "page_html",
    "rank",
    "report",
    "report_pair",
    "write_checkup",
    "write_gallery_comparison",
    "write_page",
]

make_callable(__name__, report)
