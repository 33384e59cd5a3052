"""Hugging Face data sets to learn from: rows with a picture and a label, in splits.

Pictures are found and read as for looking at (see :mod:`convscope.data.hugging_face`). The label is the
column ``label`` or ``labels``; else the only one whose feature is ClassLabel.
"""

from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.data.ahead import default_threads
from convscope.data.hugging_face import RowListing
from convscope.data.opening import labelled_pictures, opened
from convscope.data.splits import Labelled, Wish

_LABELS = ("label", "labels")


def row_pictures(rows: Any, wish: Wish, name: str) -> Labelled:
    """Return the labelled pictures of a ``datasets.Dataset``, each of which was read once.

    Args:
        rows: the data set; its transforms aren't applied.
        wish: how they are fitted.
        name: for messages.

    Raises:
        ConvscopeError: it has no column of pictures or of labels, no whole picture, or no label.
    """
    listing = RowListing(rows)
    column = _label_column(rows.features, name)
    labels = list(rows.with_format(None).select_columns([column])[column])
    names = getattr(rows.features[column], "names", None)

    def check(index: int) -> Any:
        listing.read(index)
        return labels[index]

    found = opened(check, len(listing), names, name, default_threads())
    return labelled_pictures(listing.read, found, wish, name)


def _label_column(features: Any, name: str) -> str:
    for column in _LABELS:
        if column in features:
            return column
    classes = [column for column, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    if len(classes) == 1:
        return str(classes[0])
    if classes:
        raise ConvscopeError(
            f"{name} with the class labels {', '.join(classes)}",
            "a column called label",
            f"choose one: dataset.rename_column({classes[0]!r}, 'label'), then save it",
        )
    raise ConvscopeError(
        f"{name} with the columns {', '.join(features)}",
        "a column called label or labels, or one whose feature is ClassLabel",
        "rename the column of labels: dataset.rename_column('…', 'label')",
    )
