"""The templates of the pages, and what they write values with."""

from types import CodeType

from jinja2 import BytecodeCache, Environment, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket

from convscope.report.pages.fields import Fields
from convscope.report.pages.offline import static_text
from convscope.report.wording.ledger_groups import by_reason


class _CompiledOnce(BytecodeCache):
    """The templates that this process has compiled: 0.2 s for all of them, as much as a small page takes."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Give a template its code, if it has been compiled."""
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a template's code."""
        if bucket.code is not None:
            self._codes[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _CompiledOnce()


def bare_environment() -> Environment:
    """Return the templates; what is written into them is escaped, and a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("convscope.report.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_COMPILED,
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
        card_id=fields.card_id,
        card_of=fields.card_of,
        noun=fields.noun,
        spans_one=fields.spans_one,
        bar=fields.bar,
        top=fields.largest,
        by_reason=lambda paths: by_reason(paths, lambda path: _words(fields, path)),
    )
    return environment


def _words(fields: Fields, path: str) -> tuple[str, str, str]:
    verdict, reason, remedy = (fields.get(f"{path}.{name}") for name in ("verdict", "reason", "remedy"))
    return verdict, reason, remedy
