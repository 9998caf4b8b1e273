"""The section on nuisances: whether coordinates follow what they should not."""

from recovar.nuisance import LEVEL, PERMUTATIONS, Audit, Dependence
from recovar.workflows.reporting.contents import Contents
from recovar.workflows.reporting.markup import Markup, element
from recovar.workflows.reporting.page import Section

_LEAST_TOP = 0.1
"""Share that the strongest colour stands for at least."""
_LEAST_WRITTEN = 0.005
"""Smaller shares are left blank."""
_STRONGEST = 75
"""Percent of ink in the strongest colour."""


def show_nuisances(contents: Contents) -> Section | None:
    """Write the section, if the run was audited."""
    audit: Audit | None = contents.result("nuisance", Audit)
    if audit is None or not audit.names:
        return None
    flags = [element("li", flag.text) for flag in audit.flags]
    exchanged = "groups of images" if audit.blocks else "images"
    body = [
        element("div", element("ul", flags), class_="warnings")
        if flags
        else element("p", "No coordinate follows any of these clearly."),
        element("h4", "Share of each coordinate that is explained, in %"),
        _heat_table(audit, audit.mean),
        element("h4", "Share of how widely each coordinate spreads, in %"),
        _heat_table(audit, audit.spread),
        element(
            "p",
            f"Of {audit.images:,} images. Shares are less what as many functions explain by "
            f"chance; framed ones are not small and come by chance in fewer than {LEVEL:.0%} of "
            f"analyses: {exchanged} were exchanged {PERMUTATIONS} times to find out.",
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


def _heat_table(audit: Audit, each: Dependence) -> Markup:
    top = max(_LEAST_TOP, float(each.share.max()))
    numbers = [element("th", str(k + 1), class_="number") for k in range(each.share.shape[1])]
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            [
                _cell(share, chance, top, framed=framed)
                for share, chance, framed in zip(
                    each.share[row].tolist(),
                    each.chance[row].tolist(),
                    each.flagged[row].tolist(),
                    strict=True,
                )
            ],
        )
        for row, name in enumerate(audit.names)
    ]
    head = element("thead", element("tr", element("th", "coordinate"), numbers))
    inside = element("table", head, element("tbody", rows), class_="heat")
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
