"""HTML from parts; what is not markup already is escaped, so no text of a user becomes markup."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

_WITHOUT_END = ("br", "img", "input", "link", "meta")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def element(
    name: str, /, *children: str | Iterable[str], **attributes: str | int | float | bool | None
) -> Markup:
    """Write one element.

    Args:
        name: Of the element.
        children: Markup, or text to be escaped, one by one or as sequences.
        attributes: By name; a last underscore is dropped, others become dashes. None and False
            leave an attribute out, True writes its name only.

    Example:
        >>> element("a", "1 < 2", element("br"), href='"x"', class_="plain", download=True)
        '<a href="&quot;x&quot;" class="plain" download>1 &lt; 2<br></a>'
    """
    words = [name]
    for key, value in attributes.items():
        attribute = key.removesuffix("_").replace("_", "-")
        if value is True:
            words.append(attribute)
        elif value is not None and value is not False:
            words.append(f'{attribute}="{_text(value)}"')
    if name in _WITHOUT_END:
        return Markup(f"<{' '.join(words)}>")
    return Markup(f"<{' '.join(words)}>{join(children)}</{name}>")


def join(children: Iterable[str | Iterable[str]]) -> Markup:
    """Put parts behind each other, and escape those that are plain text."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(html.escape(child))
        else:
            parts.append(join(child))
    return Markup("".join(parts))


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()
) -> Markup:
    """Write a table that can be scrolled sideways.

    Args:
        head: Names of the columns.
        rows: Cells, text or markup.
        numbers: Columns that are aligned to the right.
    """

    def line(kind: str, cells: Sequence[str]) -> Markup:
        return element(
            "tr",
            [
                element(kind, cell, class_="number" if column in numbers else None)
                for column, cell in enumerate(cells)
            ],
        )

    body = [line("td", row) for row in rows]
    return element(
        "div",
        element("table", element("thead", line("th", head)), element("tbody", body)),
        class_="scroll",
        tabindex="0",
    )


def figure(content: str, caption: str = "", kind: str = "chart") -> Markup:
    """Write a figure with its caption."""
    below = element("figcaption", caption) if caption else ""
    return element("figure", content, below, class_=kind)


def embed_json(identifier: str, value: Any) -> Markup:  # noqa: ANN401
    """Write plain values for scripts; nothing in them can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return element("script", Markup(safe), type="application/json", id=identifier)


def _text(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return html.escape(str(value))
