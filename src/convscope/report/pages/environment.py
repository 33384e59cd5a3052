"""The templates of the pages, and what they write values with."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from convscope.report.pages.fields import Fields
from convscope.report.pages.offline import static_text
from convscope.report.wording.ledger_groups import by_reason


def bare_environment() -> Environment:
    """Return the templates; what is written into them is escaped, and a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("convscope.report.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["licences"] = static_text("LICENSES").partition("\n\n")[2]
    return environment


def page_environment(fields: Fields) -> Environment:
    """Return the templates, which write the values of a page's data by way of its fields."""
    environment = bare_environment()
    environment.globals.update(
        get=fields.get,
        has=fields.has,
        items=fields.items,
        num=fields.number,
        col=fields.in_column,
        txt=fields.text,
        ev=fields.evidence,
        alike=fields.alike,
        noun=fields.noun,
        spans_one=fields.spans_one,
        loss_unit=lambda: fields.loss_unit,
        bar=fields.bar,
        top=fields.largest,
        by_reason=lambda paths: by_reason(paths, lambda path: _words(fields, path)),
    )
    return environment


def _words(fields: Fields, path: str) -> tuple[str, str, str]:
    verdict, reason, remedy = (fields.get(f"{path}.{name}") for name in ("verdict", "reason", "remedy"))
    return verdict, reason, remedy
