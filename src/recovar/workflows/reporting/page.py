"""The page: sections behind each other, with all that they need inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from recovar.workflows.reporting.markup import Markup, element, join

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Nothing may be fetched from anywhere, whatever the page holds."""


@dataclass(frozen=True)
class Section:
    """A part of the page that has its own heading."""

    identifier: str
    title: str
    lead: str
    """What one sees, and what can mislead."""
    body: Sequence[str]


def make_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Write the whole page."""
    links = [
        element("li", element("a", section.title, href=f"#{section.identifier}"))
        for section in sections
    ]
    return (
        "<!doctype html>\n"
        + element(
            "html",
            element(
                "head",
                element("meta", charset="utf-8"),
                element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("meta", name="color-scheme", content="light dark"),
                element("link", rel="icon", href="data:,"),
                element("title", title),
                element("style", Markup(read_asset("page.css"))),
            ),
            element(
                "body",
                element(
                    "nav",
                    element("a", "recovar", href="#top", class_="brand"),
                    element("ul", links),
                    aria_label="Sections",
                ),
                element(
                    "main",
                    element("header", element("h1", title), element("p", subtitle), id="top"),
                    [_write(section) for section in sections],
                ),
                element("div", id="tip", role="status", hidden=True),
                [element("script", Markup(read_asset(name))) for name in ("page.js", "scatter.js")],
            ),
            lang="en",
        )
        + "\n"
    )


@cache
def read_asset(name: str) -> str:
    """Read a file that lies beside this module."""
    return (resources.files("recovar.workflows.reporting") / "assets" / name).read_text(
        encoding="utf-8"
    )


def _write(section: Section) -> Markup:
    return element(
        "section",
        element("h2", section.title),
        element("p", section.lead, class_="lead"),
        join(section.body),
        id=section.identifier,
    )
