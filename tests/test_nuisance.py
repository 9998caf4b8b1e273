"""Dependences that were planted are found, and those that are not there are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import rankdata

from recovar.nuisance import (
    LEVEL,
    audit,
    from_direction,
    from_groups,
    from_number,
    from_turn,
)

IMAGES, MICROGRAPHS = 2000, 100


def draw(seed, images=IMAGES, micrographs=MICROGRAPHS):
    """Images of micrographs with a defocus each."""
    rng = np.random.default_rng(seed)
    micrograph = np.sort(rng.integers(0, micrographs, images))
    defocus = rng.lognormal(9.5, 0.3, micrographs)[micrograph] + rng.normal(0, 10, images)
    return rng, micrograph, defocus, Rotation.random(images, rng=rng).as_matrix()


def list_nuisances(rng, micrograph, defocus, rotations):
    return [
        from_number("defocus", defocus),
        from_direction("viewing direction", rotations[:, 2]),
        from_turn("in-plane angle", rotations),
        from_number("contrast", 1 + 0.2 * rng.standard_normal(len(defocus))),
        from_groups("micrograph", micrograph, in_blocks=False),
        from_groups("half set", rng.integers(0, 2, len(defocus))),
    ]


def unsure(coordinates, share=0.3):
    """Posterior variances that are a share of all variance."""
    return np.broadcast_to(share / (1 - share) * coordinates.var(0), coordinates.shape)


def named(found):
    return {(flag.coordinate, flag.nuisance, flag.kind) for flag in found.flags}


def mix(signal, noise, share):
    signal = (signal - signal.mean()) / signal.std()
    return np.sqrt(share) * signal + np.sqrt(1 - share) * noise


def test_independent_coordinates_are_flagged_no_more_often_than_stated():
    """Normal, rare and heavy-tailed coordinates; of 40 sets 2 are expected, and 7 unlikely."""
    flagged = 0
    for seed in range(40):
        rng, micrograph, *known = draw(seed, 400, 40)
        coordinates = np.stack(
            [rng.normal(size=400), rng.random(400) < 0.1, rng.standard_cauchy(400)], axis=1
        )
        nuisances = list_nuisances(rng, micrograph, *known)
        found = audit(coordinates, unsure(coordinates), nuisances, micrograph, seed)
        flagged += bool(found.flags)
    assert flagged <= 6
    assert LEVEL == 0.05


@pytest.mark.parametrize("name", ["defocus", "viewing direction", "in-plane angle", "micrograph"])
def test_a_twentieth_of_the_variance_is_found_among_two_thousand_images(name):
    rng, micrograph, defocus, rotations = draw(1)
    signals = {
        "defocus": np.log(defocus),
        "viewing direction": rotations[:, 2, 0] * rotations[:, 2, 1],
        "in-plane angle": np.cos(Rotation.from_matrix(rotations).as_euler("ZYZ")[:, 0]),
        "micrograph": rng.normal(size=MICROGRAPHS)[micrograph],
    }
    coordinates = rng.normal(size=(IMAGES, 3))
    coordinates[:, 1] = mix(signals[name], coordinates[:, 1], 0.05)
    nuisances = list_nuisances(rng, micrograph, defocus, rotations)
    found = audit(coordinates, unsure(coordinates), nuisances, micrograph)
    assert found.flags[0].nuisance == name
    assert (found.flags[0].coordinate, found.flags[0].kind) == (2, "mean")
    # Normal error of a share of 0.05 is 0.01; a random draw per micrograph varies as much again.
    assert found.flags[0].share == pytest.approx(0.05, abs=0.03)
    assert found.blocks == MICROGRAPHS


def test_few_functions_do_not_hide_what_many_explain():
    """The largest R² of one function by chance is further from its mean than that of 99."""
    rng, micrograph, defocus, rotations = draw(6)
    coordinates = rng.normal(size=(IMAGES, 6))
    signal = rng.normal(size=MICROGRAPHS)[micrograph]
    coordinates[:, 1] = mix(signal, coordinates[:, 1], 0.05)
    halves = [from_groups(f"half set {k}", rng.integers(0, 2, IMAGES)) for k in range(6)]
    nuisances = [*halves, *list_nuisances(rng, micrograph, defocus, rotations)]
    found = audit(coordinates, unsure(coordinates), nuisances, micrograph)
    assert named(found) == {(2, "micrograph", "mean")}


def test_flags_are_said_in_words():
    rng, micrograph, defocus, rotations = draw(2)
    coordinates = mix(np.log(defocus), rng.normal(size=IMAGES), 0.4)[:, None]
    nuisances = list_nuisances(rng, micrograph, defocus, rotations)
    found = audit(coordinates, unsure(coordinates), nuisances, micrograph)
    texts = [flag.text for flag in found.flags]
    assert any(text.startswith("Coordinate 1 follows defocus (R² 0.") for text in texts)


def see(rng, states, rotations):
    """Posterior means and variances of states, from images that tell more from above."""
    noise = np.exp(1.5 * (3 * rotations[:, 2, 2] ** 2 - 1))
    determined = 1 / (1 + noise)
    seen = determined * (states + np.sqrt(noise) * rng.normal(size=len(states)))
    return seen[:, None], (1 - determined)[:, None]


def test_a_perfect_analysis_of_unequal_views_is_not_flagged():
    """Ranks, which tell means from medians no more, would be: a fifth of a skewed state."""
    rng, micrograph, defocus, rotations = draw(3, 10_000)
    states = np.where(rng.random(10_000) < 0.2, 2.0, -0.5)
    coordinates, variances = see(rng, states, rotations)
    nuisances = list_nuisances(rng, micrograph, defocus, rotations)
    assert not audit(coordinates, variances, nuisances, micrograph).flags
    ranked = audit(rankdata(coordinates, axis=0), 0 * variances, nuisances, micrograph)
    assert (1, "viewing direction", "mean") in named(ranked)


def test_errors_that_are_not_as_stated_show_in_the_spread():
    rng, micrograph, defocus, rotations = draw(4, 5000)
    coordinates, variances = see(rng, rng.normal(size=5000), rotations)
    nuisances = list_nuisances(rng, micrograph, defocus, rotations)
    wrong = np.full_like(variances, variances.mean())
    assert named(audit(coordinates, wrong, nuisances, micrograph)) == {
        (1, "viewing direction", "spread")
    }


def test_what_differs_between_micrographs_is_not_taken_for_an_effect_of_defocus():
    """Images exchanged one by one would call the defocus of 40 micrographs certain."""
    flags = []
    for blocks in (True, False):
        rng, micrograph, defocus, rotations = draw(5, 4000, 40)
        coordinates = mix(rng.normal(size=40)[micrograph], rng.normal(size=4000), 0.3)[:, None]
        nuisances = list_nuisances(rng, micrograph, defocus, rotations)
        found = audit(coordinates, unsure(coordinates), nuisances, micrograph if blocks else None)
        flags.append(named(found))
    assert (1, "micrograph", "mean") in flags[0]
    assert (1, "defocus", "mean") not in flags[0]
    assert (1, "defocus", "mean") in flags[1]


@settings(max_examples=5)
@given(seed=st.integers(0, 2**16))
def test_the_frame_of_the_molecule_does_not_matter(seed):
    rng, _, _, rotations = draw(seed, 300)
    coordinates = rng.normal(size=(300, 2))

    def shares(turned):
        nuisances = [from_direction("view", turned[:, 2]), from_turn("turn", turned)]
        return audit(coordinates, unsure(coordinates), nuisances).mean.share

    frame = Rotation.random(rng=rng).as_matrix()
    np.testing.assert_allclose(shares(rotations @ frame), shares(rotations), atol=1e-4)


def test_what_does_not_vary_is_left_out():
    rng = np.random.default_rng(0)
    coordinates = np.stack([rng.normal(size=100), np.zeros(100)], axis=1)
    nuisances = [
        from_number("defocus", np.full(100, 1e4)),
        from_groups("optics group", np.ones(100)),
        from_groups("micrograph", np.arange(100)),
        from_number("order", np.arange(100.0)),
    ]
    found = audit(coordinates, 0.1 * np.abs(coordinates), nuisances)
    assert found.names == ("order",)
    assert found.functions.tolist() == [3]
    np.testing.assert_array_equal(found.mean.share[:, 1], 0)
    assert not found.flags


def test_functions_of_a_direction_are_all_harmonics_up_to_degree_four():
    directions = Rotation.random(2000, rng=np.random.default_rng(0)).as_matrix()[:, 2]
    found = audit(directions, np.full_like(directions, 0.1), [from_direction("view", directions)])
    assert found.functions.tolist() == [24]
    # Winsorizing half a percent at either end bends a coordinate by very little.
    np.testing.assert_allclose(found.mean.share, 1, atol=1e-3)
