from dataclasses import replace

import equinox as eqx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulations import (
    DISC,
    GRID,
    IMAGES,
    SPECIMEN,
    busy,
    everything,
    flat_optics,
    simulation,
    spectra_of,
)

from recovar.acquisition import (
    Guests,
    Kind,
)
from recovar.core.ctf import transfer_function
from recovar.core.projection import centring_factors
from recovar.errors import InputError
from recovar.specimens import VolumeSpecimen


@pytest.mark.parametrize("premultiplied", [True, False])
@pytest.mark.parametrize("delocalized", [True, False])
@pytest.mark.parametrize("kind", ["atoms", "volumes"])
def test_images_do_not_depend_on_their_block(kind, delocalized, premultiplied, monkeypatch):
    sim = busy(40, delocalized=delocalized, premultiplied=premultiplied)
    assert len(np.unique(sim.truth.kind)) == 4
    if kind == "volumes":
        volumes = np.stack([SPECIMEN.volume(np.array([s]), GRID) for s in range(6)])
        sim = replace(sim, specimen=VolumeSpecimen(volumes))
    whole = sim.images(everything(sim))
    pieces = [sim.images(rows) for rows in np.split(everything(sim), [1, 4, 9, 30])]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(sim.images(np.array([7, 2, 2])), whole[[7, 2, 2]])
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    np.testing.assert_array_equal(sim.images(np.arange(8)), whole[:8])


def test_images_do_not_depend_on_those_after_them():
    whole, first = simulation(), simulation(5)
    np.testing.assert_array_equal(
        first.images(everything(first)), whole.images(everything(whole))[:5]
    )


def test_another_seed_gives_other_images():
    first, second = (simulation(2, seed=seed).truth for seed in (0, 1))
    for name in ("states", "rotations", "shifts", "contrast"):
        assert not np.isclose(getattr(first, name), getattr(second, name)).any()
    images = simulation(2)
    other = replace(images, truth=replace(images.truth, seed=1))
    assert np.abs(images.images(everything(images)) - other.images(everything(other))).max() > 1


def test_images_within_their_box_obey_the_model_exactly():
    sim = simulation(delocalized=False)
    truth = sim.truth
    step = 1 / (GRID.size * GRID.voxel_size)
    transfer = transfer_function(truth.optics, DISC.x * step, DISC.y * step)
    shift = centring_factors(truth.shifts, DISC, GRID.voxel_size).conj()
    slices = SPECIMEN.spectra(truth.states, truth.rotations, GRID)
    expected = truth.contrast[:, None] * transfer * shift * slices
    found = spectra_of(sim.signals(everything(sim)))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_wide_field_loses_what_a_narrow_one_wraps_around():
    # Where nothing leaves the box both agree; a strong defocus carries signal out of it.
    near = simulation()
    flat = flat_optics()
    near = replace(near, truth=replace(near.truth, optics=flat, shifts=0 * near.truth.shifts))
    wide, narrow = (replace(near, delocalized=d).signals(everything(near)) for d in (True, False))
    np.testing.assert_allclose(wide, narrow, atol=1e-5 * np.abs(narrow).max())
    far = eqx.tree_at(
        lambda o: (o.defocus_u, o.defocus_v, o.amplitude_contrast),
        flat,
        (flat.scale * 2e4, flat.scale * 2e4, flat.scale * 0),
    )
    strong = replace(near, truth=replace(near.truth, optics=far))
    wide, narrow = (replace(strong, delocalized=d).signals(everything(near)) for d in (True, False))
    assert np.square(wide).sum() < 0.97 * np.square(narrow).sum()


@pytest.mark.parametrize("delocalized", [True, False])
def test_moving_an_image_by_its_shift_centres_it(delocalized):
    sim = simulation(delocalized=delocalized)
    pixels = np.array([[x, y] for x in (-2, 0, 1) for y in (-1, 2, 0)] + [[0, 0]] * 2)
    truth = replace(sim.truth, optics=flat_optics())
    moved = replace(sim, truth=replace(truth, shifts=pixels * GRID.voxel_size))
    still = replace(sim, truth=replace(truth, shifts=pixels * 0.0))
    images = moved.signals(everything(sim))
    back = [np.roll(image, (y, x), (0, 1)) for image, (x, y) in zip(images, pixels, strict=True)]
    expected = still.signals(everything(sim))
    inside = np.s_[:, 3:-3, 3:-3]
    np.testing.assert_allclose(
        np.array(back)[inside], expected[inside], atol=2e-4 * np.abs(expected).max()
    )


def test_noise_has_its_power_on_every_shell_and_no_correlation():
    sim = simulation(1500)
    truth = replace(sim.truth, amplitude=0.0, noise=256.0 * np.linspace(3, 0.5, 8))
    noise = replace(sim, truth=truth).images(everything(sim))
    spectra = spectra_of(noise)
    # 1500 exponential variates per pixel: 5 standard errors.
    power = (np.abs(spectra) ** 2).mean(0)
    np.testing.assert_allclose(power[1:], truth.noise[DISC.shells][1:], rtol=5 / 1500**0.5)
    assert np.abs((spectra[:, 5] * spectra[:, 6].conj()).mean()) < 5 / 1500**0.5 * power[5]
    variance = noise.var()
    one = (noise[:, 0, 0] * noise[:, 8, 8]).mean()
    assert np.abs(one) < 0.3 * variance


@given(ratio=st.floats(0.01, 10))
def test_the_signal_is_scaled_to_its_share_of_the_noise(ratio):
    sim = simulation(6).at_signal_to_noise(ratio)
    signal = sim.signals(everything(sim))
    assert np.square(signal).mean() == pytest.approx(ratio, rel=1e-4)
    volume = sim.volume(sim.truth.states[0])
    plain = SPECIMEN.volume(sim.truth.states[0], GRID)
    np.testing.assert_allclose(volume, sim.truth.amplitude * plain, rtol=1e-5)


@pytest.mark.parametrize("delocalized", [True, False])
def test_what_is_off_centre_lies_where_the_truth_says(delocalized):
    sim = simulation(delocalized=delocalized)
    truth = replace(sim.truth, optics=flat_optics(), shifts=np.zeros((IMAGES, 2)))
    pixels = np.tile([2, -1], (IMAGES, 1))
    kind = np.full(IMAGES, Kind.OFF_CENTRE)
    moved = replace(truth, kind=kind, offset=pixels * GRID.voxel_size)
    expected = np.roll(replace(sim, truth=truth).signals(everything(sim)), (-1, 2), (1, 2))
    found = replace(sim, truth=moved).signals(everything(sim))
    inside = np.s_[:, 3:-3, 3:-3]
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("premultiplied", [True, False])
def test_images_show_what_their_kind_says(premultiplied):
    """Every image is the sum of images that each show one thing."""
    sim = busy(40, delocalized=False, premultiplied=premultiplied)
    truth, found = sim.truth, sim.signals(np.arange(40))
    step = 1 / (GRID.size * GRID.voxel_size)
    transfer = transfer_function(truth.true_optics, DISC.x * step, DISC.y * step)
    transfer = truth.contrast[:, None] * transfer ** (1 + premultiplied)

    def show(states, rotations, shifts):
        slices = SPECIMEN.spectra(states, rotations, GRID)
        return slices * centring_factors(shifts, DISC, GRID.voxel_size).conj()

    expected = show(truth.states, truth.true_rotations, truth.shifts - truth.offset)
    expected[np.isin(truth.kind, (Kind.EMPTY, Kind.OTHER))] = 0
    assert (np.linalg.norm(truth.offset, axis=1) > 0).tolist() == (truth.kind == 3).tolist()
    for guests in (truth.others, truth.neighbours):
        shifts = truth.shifts[guests.rows] - guests.offsets
        expected[guests.rows] += show(guests.states, guests.rotations, shifts)
    expected *= transfer
    assert np.abs(spectra_of(found) - expected).max() < 2e-5 * np.abs(expected).max()
    empty = (truth.kind == Kind.EMPTY) & ~np.isin(np.arange(40), truth.neighbours.rows)
    assert empty.any()
    assert not found[empty].any()


def test_a_neighbour_beyond_the_box_is_not_seen():
    sim = simulation()
    truth = replace(
        sim.truth, kind=np.full(IMAGES, Kind.EMPTY), optics=flat_optics(), shifts=np.zeros((11, 2))
    )
    turned = replace(truth, neighbours=Guests(
        np.arange(IMAGES), truth.states, truth.rotations, np.tile([64.0, 0.0], (IMAGES, 1))
    ))  # fmt: skip
    plain = sim.signals(everything(sim))
    seen = replace(sim, truth=turned).signals(everything(sim))
    assert np.abs(seen).max() < 0.05 * np.abs(plain).max()


def test_an_unknown_other_molecule_is_refused():
    with pytest.raises(InputError, match="images show another molecule, but there is none"):
        replace(busy(40), other=None)


def test_premultiplied_noise_has_the_power_of_the_transfer_function():
    images, seed = 1500, 3
    sim = simulation(images, delocalized=True)
    optics = sim.truth.optics[np.zeros(images, np.int64)]
    noise = 256.0 * np.linspace(3, 0.5, 8)
    truth = replace(sim.truth, amplitude=0.0, noise=noise, optics=optics, seed=seed)
    wide = replace(sim, truth=truth, premultiplied=True)
    step = 1 / (GRID.size * GRID.voxel_size)
    transfer = transfer_function(optics[np.arange(1)], DISC.x * step, DISC.y * step)[0]
    narrow = replace(wide, delocalized=False)
    power = (np.abs(spectra_of(narrow.images(everything(sim)))) ** 2).mean(0)
    expected = noise[DISC.shells] * transfer**2
    np.testing.assert_allclose(power[1:], expected[1:], rtol=6 / images**0.5)
    # In a wide field frequencies are finer than the box tells apart: only sums agree.
    wider = (np.abs(spectra_of(wide.images(everything(sim)))) ** 2).mean(0)
    middle = (DISC.radii > 2) & (DISC.radii < 6)
    assert wider[middle].sum() == pytest.approx(expected[middle].sum(), rel=0.1)


def test_noise_and_baseline_differ_as_the_truth_says():
    sim = simulation(400)
    scale = np.repeat([0.5, 2.0], 200)
    baseline = np.linspace(-3, 3, 400)
    truth = replace(sim.truth, amplitude=0.0, noise_scale=scale)
    noise = replace(sim, truth=truth).images(everything(sim))
    # 51,200 pixels, of which the colour leaves about a third free.
    assert noise[:200].std() == pytest.approx(0.5, rel=0.03)
    assert noise[200:].std() == pytest.approx(2.0, rel=0.03)
    raised = replace(sim, truth=replace(truth, baseline=baseline)).images(everything(sim))
    np.testing.assert_allclose(raised - noise, baseline[:, None, None] + 0 * noise, atol=2e-6)
