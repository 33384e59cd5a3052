"""``convscope gallery-compare``: two galleries, unit by unit."""

from convscope.cli.options import Json
from convscope.cli.show import note, show
from convscope.core.errors import ConvscopeError


def gallery_compare(
    first: str,
    second: str,
    /,
    *,
    layers: str | None = None,
    by: str | None = None,
    out: str | None = None,
    json: Json = False,
) -> None:
    """Compare two galleries of the same images: which units are the same, and what became worse.

    Args:
        first: The folder of a gallery.
        second: The folder of another one.
        layers: Layers of the first with their partners in the second: "conv1=stem.conv,conv2=stem.conv2";
            those of the same name if left out, or else in order.
        by: How units find their partners: channel or profile; by channel where the profiles agree if left
            out.
        out: Also write a page, matched units side by side: a file that ends with .html. It shows pictures
            from the two folders, which must stay where they are.
    """
    from convscope.report import check_page, write_gallery_comparison
    from convscope.sight import compare_galleries

    if out is not None:
        check_page(out)

    result = compare_galleries(
        first,
        second,
        layers=None if layers is None else _stated(layers),
        by=by,  # type: ignore[arg-type]
    )
    if out is not None:
        note(f"page written to {write_gallery_comparison(result, out)}")
    show(result, as_json=json)


def _stated(layers: str) -> dict[str, str]:
    pairs = [pair.split("=") for pair in layers.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ConvscopeError(
            f"--layers {layers!r}", "FIRST=SECOND, separated by commas", "--layers conv1=stem.conv"
        )
    if len({first for first, _ in pairs}) < len(pairs):
        raise ConvscopeError(f"--layers {layers!r}", "each layer once", "compare them one by one")
    return dict(pairs)
