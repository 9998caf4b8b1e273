from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.ctf import Optics
from recovar.core.fourier import to_spectrum, to_volume
from recovar.core.frequencies import Disc
from recovar.core.poses import random_rotations
from recovar.core.projection import centring_factors
from recovar.data.bank import ImageBank
from recovar.data.mrc import write_stack
from recovar.data.particles import Particles
from recovar.errors import InputError

IMAGES, SIZE, PIXEL = 13, 8, 1.5
PER_IMAGE = 12 * len(Disc(SIZE, 3))
EVERYTHING = 1 << 30


def make_particles(directory: Path, **changes) -> tuple[Particles, np.ndarray]:
    """Write two stacks, and list their images in an order of their own."""
    generator = np.random.default_rng(0)
    images = generator.normal(size=(IMAGES, SIZE, SIZE)).astype(np.float32)
    paths = (directory / "a.mrcs", directory / "b.mrcs")
    order = generator.permutation(IMAGES)
    stack = (np.arange(IMAGES) >= 6).astype(np.int32)
    place = np.where(stack, np.arange(IMAGES) - 6, np.arange(IMAGES))
    for number, path in enumerate(paths):
        write_stack(path, images[stack == number], PIXEL)
    values = generator.uniform(0.1, 1, (9, IMAGES)).astype(np.float32)
    values[:2] *= 10_000
    values[3] = 300
    table = {
        "stacks": paths,
        "stack_index": stack[order],
        "slice_index": place[order].astype(np.int64),
        "rotations": random_rotations(IMAGES, generator),
        "shifts": generator.normal(size=(IMAGES, 2)),
        "optics": Optics(*values),
        "box": SIZE,
        "pixel_size": PIXEL,
        "particle": np.arange(IMAGES),
        "half": None,
        "identity": np.arange(IMAGES, dtype=np.uint64),
        "sources": (),
        "source_row": np.arange(IMAGES),
    }
    return Particles(**table | changes), images[order]


@pytest.fixture
def particles(tmp_path):
    return make_particles(tmp_path)[0]


def gather(images) -> dict[str, np.ndarray]:
    """Everything of all batches, in the order of the rows."""
    batches = list(images.blocks())
    order = np.argsort(np.concatenate([batch.rows for batch in batches]))
    names = ("rows", "values", "transfer", "rotations", "halves")
    return {n: np.concatenate([getattr(b, n) for b in batches])[order] for n in names}


def assert_same(first, second):
    for name, values in gather(first).items():
        np.testing.assert_array_equal(values, gather(second)[name])


def halves() -> np.ndarray:
    return np.arange(IMAGES) % 2


def test_batches_hold_centred_images_with_all_that_belongs_to_them(tmp_path):
    particles, images = make_particles(tmp_path)
    bank = ImageBank(particles, halves(), memory=0, sign=-1.0, block_bytes=4 * PER_IMAGE)
    found = gather(bank)
    expected = -bank.disc.from_spectra(to_spectrum(images.astype(np.float64), 2))
    expected = expected * centring_factors(particles.shifts, bank.disc, PIXEL)
    np.testing.assert_array_equal(found["rows"], np.arange(IMAGES))
    np.testing.assert_allclose(found["values"], expected, atol=2e-5)
    np.testing.assert_allclose(found["rotations"], particles.rotations, atol=1e-6)
    np.testing.assert_array_equal(found["halves"], halves())
    wave, phase = particles.optics.amplitude_contrast, particles.optics.phase_shift
    at_origin = np.sqrt(1 - wave**2) * np.sin(-phase) - wave * np.cos(phase)
    at_origin = at_origin * particles.optics.scale
    np.testing.assert_allclose(found["transfer"][:, 0], at_origin, rtol=1e-5)


def test_missing_shifts_are_zero(tmp_path):
    still, _ = make_particles(tmp_path, shifts=np.zeros((IMAGES, 2)))
    without, _ = make_particles(tmp_path, shifts=None)
    assert_same(ImageBank(still, halves(), 0), ImageBank(without, halves(), 0))


def test_images_are_visited_in_the_order_of_the_files(particles):
    bank = ImageBank(particles, halves(), memory=0, block_bytes=5 * PER_IMAGE)
    batches = list(bank.blocks())
    assert [len(batch) for batch in batches] == [5, 5, 3]
    rows = np.concatenate([batch.rows for batch in batches])
    places = particles.stack_index[rows] * 100 + particles.slice_index[rows]
    assert (np.diff(places) > 0).all()


def test_kept_images_equal_those_read_again_and_need_no_files(particles):
    reread = ImageBank(particles, halves(), memory=0)
    kept = ImageBank(particles, halves(), memory=EVERYTHING, block_bytes=4 * PER_IMAGE)
    assert kept.fits
    assert not reread.fits
    first = gather(kept)
    assert_same(reread, kept)
    for path in particles.stacks:
        path.unlink()
    again = gather(kept)
    for name, values in first.items():
        np.testing.assert_array_equal(again[name], values)
    with pytest.raises(InputError):
        gather(reread)


@given(block=st.integers(1, 20), memory=st.sampled_from([0, EVERYTHING]))
def test_the_size_of_a_block_changes_nothing(tmp_path_factory, block, memory):
    particles, _ = make_particles(tmp_path_factory.mktemp("bank"))
    usual = ImageBank(particles, halves(), memory=0)
    assert_same(ImageBank(particles, halves(), memory, block_bytes=block * PER_IMAGE), usual)


@given(start=st.integers(0, 14), visits=st.integers(0, 2), memory=st.sampled_from([0, EVERYTHING]))
def test_a_pass_that_starts_later_leaves_out_just_the_first(
    tmp_path_factory, start, visits, memory
):
    particles, _ = make_particles(tmp_path_factory.mktemp("bank"))
    bank = ImageBank(particles, halves(), memory, block_bytes=4 * PER_IMAGE)
    whole = np.concatenate([batch.rows for batch in bank.blocks()])
    for _ in range(visits):
        list(bank.blocks())
    rest = [row for batch in bank.blocks(start) for row in batch.rows]
    assert rest == whole[start:].tolist()


def test_a_pass_that_was_left_keeps_nothing_half(particles):
    bank = ImageBank(particles, halves(), EVERYTHING, block_bytes=4 * PER_IMAGE)
    next(iter(bank.blocks()))
    list(bank.blocks(6))
    assert_same(bank, ImageBank(particles, halves(), memory=0))


def test_two_passes_at_once_keep_every_image_once(particles):
    bank = ImageBank(particles, halves(), EVERYTHING, block_bytes=4 * PER_IMAGE)
    for first, second in zip(bank.blocks(), bank.blocks(), strict=True):
        np.testing.assert_array_equal(first.values, second.values)
    assert sum(len(batch) for batch in bank.blocks()) == IMAGES


def test_phase_flipped_images_have_transfer_functions_without_sign(tmp_path):
    """Images times the sign of C are |C| times the slice, with noise of the same power."""
    plain, images = make_particles(tmp_path)
    bank = ImageBank(plain, halves(), memory=0)
    wanted = gather(bank)
    spectra = bank.disc.from_spectra(to_spectrum(images.astype(np.float64), 2))
    flipped = to_volume(bank.disc.to_spectra(spectra * np.sign(wanted["transfer"])), 2)
    write_stack(tmp_path / "f.mrcs", flipped.astype(np.float32), PIXEL)
    changes = {"stacks": (tmp_path / "f.mrcs",), "phase_flipped": True}
    places = {"stack_index": np.zeros(IMAGES, np.int32), "slice_index": np.arange(IMAGES)}
    found = gather(ImageBank(replace(plain, **changes, **places), halves(), memory=0))
    np.testing.assert_array_equal(found["transfer"], np.abs(wanted["transfer"]))
    signs = np.sign(wanted["transfer"])
    np.testing.assert_allclose(found["values"], signs * wanted["values"], atol=2e-5)


@pytest.mark.parametrize("missing", ["rotations", "optics"])
def test_images_without_poses_or_optics_are_refused(tmp_path, missing):
    particles, _ = make_particles(tmp_path, **{missing: None})
    with pytest.raises(InputError, match="--poses and --ctf"):
        ImageBank(particles, halves(), memory=0)
