"""What was found, as sentences for people and as JSON for programs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from recovar.core.grid import Grid
from recovar.workflows.checking.alternatives import Alternative
from recovar.workflows.checking.maps import HandFound, MaskFound
from recovar.workflows.checking.search import CONVINCING, Found

_LINES = 12


@dataclass(frozen=True)
class Checked:
    """Everything that `recovar check` has found."""

    found: Found
    grid: Grid
    """Of the images as they were tried."""
    images: int
    sign: int
    """Sign of dense matter in the reconstruction; 0 if it is not seen."""
    hand: HandFound | None
    """How the reference fits, if there is one."""
    mask: MaskFound | None
    """How the mask fits, if there is one."""


def show_odds(log10: float) -> str:
    """Write odds in words.

    Example:
        >>> show_odds(2.0), show_odds(45.2), show_odds(-3.0)
        ('100 to 1', '10^45 to 1', '1 to 1000')
    """
    size = abs(log10)
    text = f"{10**size:.0f}" if size < 4 else f"10^{size:.0f}"
    if log10 == float("-inf"):
        return "impossible"
    return f"{text} to 1" if log10 >= 0 else f"1 to {text}"


def verdict(checked: Checked) -> list[str]:
    """Tell in sentences which reading is right, how sure that is, and what to do."""
    sentences = list(_on_reading(checked.found))
    if checked.found.is_supported:
        sentences += [*_on_sign(checked), *_on_hand(checked.hand), *_on_mask(checked.mask)]
    return sentences


def _on_reading(found: Found) -> Iterator[str]:
    if not found.is_supported:
        yield (
            "No verdict: half of the images do not predict the other half better than images dealt "
            f"to the poses at random (odds {show_odds(found.support.log10)}), under no reading "
            "that was tried. Either poses and images do not belong together, or there are too few "
            "images for their noise; try --n-images with a larger number."
        )
        return
    certain = [each for each in found.judged if each.odds.log10 <= -CONVINCING]
    against = ""
    if certain:
        best = certain[0]
        against = (
            f", odds {show_odds(-best.odds.log10)} against the next best ({best.alternative.name})"
        )
    if not found.changes:
        yield f"As stated: images agree with what the files say{against}."
    else:
        names = "; and ".join(change.name for change in found.changes)
        odds = found.against_stated
        stated = (
            "what the files say is impossible"
            if odds is None
            else f"odds {show_odds(odds.log10)} against what the files say"
        )
        yield f"Not as stated: {names}. This has {stated}{against}."
        for change in found.changes:
            yield f"What to do: {change.remedy}"
    for rival in found.rivals:
        yield (
            "Cannot be told from these images, and makes hardly any difference to them: whether "
            f"{rival.alternative.name} (odds {show_odds(rival.odds.log10)})."
        )


def _on_sign(checked: Checked) -> Iterator[str]:
    if checked.sign > 0:
        yield "Sign: density is positive after correction by the CTF, as it should be."
    elif checked.sign < 0:
        yield (
            "Sign: density is negative after correction by the CTF, so particles are bright in the "
            "images. The pipeline flips such images by itself; --uninvert-data true makes sure."
        )
    else:
        yield "Sign: cannot be told, the two half-maps do not agree about it."


def _on_hand(hand: HandFound | None) -> Iterator[str]:
    if hand is None:
        yield "Hand: cannot be told from images alone; give a map with --volume."
    elif not hand.is_aligned:
        yield (
            f"Hand: cannot be told, the map of --volume correlates no better than "
            f"{hand.correlation:.2f} in 24 orientations of both hands. Align it first."
        )
    elif abs(hand.log10_odds) < CONVINCING:
        yield "Hand: cannot be told, the map of --volume and its mirror fit alike."
    else:
        where = hand.orientation
        turned = "" if where.is_identity else f" It fits with {where}."
        which = "opposite to that" if where.is_mirror else "that"
        yield (
            f"Hand: {which} of --volume, odds {show_odds(hand.log10_odds)} (correlation "
            f"{hand.correlation:.2f}, mirror {hand.other:.2f}).{turned}"
        )


def _on_mask(mask: MaskFound | None) -> Iterator[str]:
    if mask is None:
        return
    if not mask.orientation.is_identity:
        yield (
            f"Mask: its axes are in another order. It fits with {mask.orientation}, odds "
            f"{show_odds(mask.odds.log10)} against the file as it is: then {mask.inside:.0%} of "
            f"the signal is inside, now {mask.stated:.0%}. Write it again so."
        )
    elif mask.odds.log10 >= CONVINCING:
        yield (
            f"Mask: its axes are right, odds {show_odds(mask.odds.log10)} against the next best "
            f"of 48 orders; {mask.inside:.0%} of the signal is inside."
        )
    else:
        yield (
            "Mask: its axes may stay as they are, no other order fits clearly better or worse; "
            f"{mask.inside:.0%} of the signal is inside."
        )


def table(found: Found) -> list[str]:
    """List the likeliest single changes of what was found."""
    lines = [f"{'log10 odds':>10}  {'deviations':>10}  if instead"]
    lines += [
        f"{each.odds.log10:10.1f}  {each.odds.deviations:10.1f}  {each.alternative.name}"
        for each in found.judged[:_LINES]
    ]
    rest = len(found.judged) - _LINES
    return [*lines, f"{'':24}and {rest} others"] if rest > 0 else lines


def to_tree(checked: Checked) -> dict[str, Any]:
    """Give everything to programs."""
    found = checked.found
    return {
        "verdict": verdict(checked),
        "as_stated": found.is_supported and not found.changes,
        "supported": found.is_supported,
        "changes": [_change(each) for each in found.changes],
        "log10_odds_against_stated": None
        if found.against_stated is None
        else found.against_stated.log10,
        "log10_odds_against_shuffled": found.support.log10,
        "readings": [
            {
                "factor": each.alternative.factor,
                "name": each.alternative.name,
                "log10_odds": _finite(each.odds.log10),
                "log10_likelihood_ratio": _finite(each.odds.ratio),
                "deviations": _finite(each.odds.deviations),
                "images": each.images,
            }
            for each in found.judged
        ],
        "fsc": found.evidence.curve.tolist(),
        "images": checked.images,
        "box": checked.grid.size,
        "pixel_size": checked.grid.voxel_size,
        "sign": checked.sign,
        "hand": None if checked.hand is None else _hand(checked.hand),
        "mask": None if checked.mask is None else _mask(checked.mask),
    }


def _finite(value: float) -> float:
    return max(float(value), -1e9)


def _change(alternative: Alternative) -> dict[str, str]:
    return {
        "factor": alternative.factor,
        "name": alternative.name,
        "remedy": alternative.remedy,
    }


def _hand(hand: HandFound) -> dict[str, Any]:
    return {
        "aligned": hand.is_aligned,
        "mirrored": hand.orientation.is_mirror,
        "orientation": str(hand.orientation),
        "correlation": hand.correlation,
        "correlation_of_other_hand": hand.other,
        "inverted": hand.inverted,
        "log10_odds": hand.log10_odds,
    }


def _mask(mask: MaskFound) -> dict[str, Any]:
    return {
        "as_stated": mask.orientation.is_identity,
        "orientation": str(mask.orientation),
        "signal_inside": mask.inside,
        "signal_inside_as_stated": mask.stated,
        "log10_odds": mask.odds.log10,
    }
