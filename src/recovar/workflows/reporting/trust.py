"""The section on nuisances: whether coordinates follow what they should not."""

import json
from collections.abc import Mapping
from typing import Any

from recovar.workflows.reporting.contents import Contents
from recovar.workflows.reporting.markup import Markup, element
from recovar.workflows.reporting.page import Section

_LEAST_TOP = 0.1
"""Share that the strongest colour stands for at least."""
_LEAST_WRITTEN = 0.005
"""Smaller shares are left blank."""
_STRONGEST = 75
"""Percent of ink in the strongest colour."""
_KINDS = {
    "mean": "Share of each coordinate that is explained, in %",
    "spread": "Share of how widely each coordinate spreads, in %",
}


def show_nuisances(contents: Contents) -> Section | None:
    """Write the section, if the run was audited."""
    file = contents.path / "output" / "nuisance.json"
    if not file.exists():
        return None
    audit = json.loads(file.read_text(encoding="utf-8"))
    flags = [str(flag["text"]) for flag in audit["flags"]]
    body = [
        element("div", element("ul", [element("li", text) for text in flags]), class_="warnings")
        if flags
        else element("p", "No coordinate follows any of these clearly."),
        *(
            part
            for kind, title in _KINDS.items()
            for part in (element("h4", title), _heat_table(audit, kind))
        ),
        element(
            "p",
            f"Of {audit['audited']:,} images. Shares are less what as many functions explain by "
            f"chance; framed ones are at least {audit['least_share']:.0%} and come by chance in "
            f"fewer than {audit['level']:.0%} of analyses. {audit['permutations']} times "
            f"{audit['permuted']} were exchanged to find out.",
            class_="quiet",
        ),
    ]
    return Section(
        "nuisances",
        "Nuisances",
        "Whether coordinates follow defocus, view, contrast, shift or micrograph, which shapes of "
        "molecules have no reason to do. A dependence on the view can be real, as where a molecule "
        "lies on its side in one state; one on defocus or contrast hardly ever is.",
        body,
    )


def _heat_table(audit: Mapping[str, Any], kind: str) -> Markup:
    rows = audit["nuisances"]
    shares = [share for row in rows for share in row[kind]["share"]]
    top = max([_LEAST_TOP, *shares])
    flagged = {
        (flag["nuisance"], flag["coordinate"]) for flag in audit["flags"] if flag["kind"] == kind
    }
    numbers = [element("th", str(k), class_="number") for k in audit["coordinates"]]
    head = element("tr", element("th", "coordinate"), numbers)
    body = [
        element(
            "tr",
            element("th", row["name"], scope="row"),
            [
                _cell(share, chance, top, framed=(row["name"], k) in flagged)
                for k, share, chance in zip(
                    audit["coordinates"], row[kind]["share"], row[kind]["chance"], strict=True
                )
            ],
        )
        for row in rows
    ]
    inside = element("table", element("thead", head), element("tbody", body), class_="heat")
    return element("div", inside, class_="scroll", tabindex="0")


def _cell(share: float, chance: float, top: float, *, framed: bool) -> Markup:
    strength = _STRONGEST * (max(0.0, share) / top) ** 0.5
    return element(
        "td",
        f"{100 * share:.0f}" if share >= _LEAST_WRITTEN else "",
        class_="framed" if framed else None,
        title=f"R² {share:.3f}, by chance in {chance:.1%} of analyses",
        style=f"background:color-mix(in srgb, var(--s0) {strength:.0f}%, transparent)",
    )
