"""Every file of other programs but STAR files: what is read from it, or why it is refused."""

from pathlib import Path

import numpy as np
import pytest

from recovar.data.atoms import read_atoms
from recovar.data.cryosparc import read_cs_table
from recovar.data.legacy import read_ctf_pickle, read_poses_pickle
from recovar.data.mrc import open_sections, read_header, read_volume
from recovar.data.particles import read_particles
from recovar.data.stack import read_images
from recovar.errors import InputError

STACKS = {
    # images promised, images there, rows, columns, type, pixel size in Å
    "aspire/sample_images0-7.mrcs": (8, 8, 200, 200, "<f4", None),
    "cryodrgn/empiar_10076_rows0-3.mrcs": (4, 4, 320, 320, "<f4", None),
    "cryodrgn/relion31.mrcs": (5, 5, 256, 256, "<f4", 1.0),
    "cryojax/000000.mrcs": (3, 3, 16, 16, "<f4", None),
    **{
        f"drgnai/00{number}_Ribosomes_1.70A.mrcs": (11029, 1, 128, 128, "<f4", 1.0)
        for number in (256, 263, 272, 276, 281)
    },
    "rosettasciio/HAADFscan.mrc": (1, 1, 16, 16, "<u2", 56.7913),
    "simplecryoem/relion_proj_batch.mrcs": (24, 24, 64, 64, "<f4", 3.54),
    "spider/sav_nat_part_stk.mrcs": (5, 5, 130, 130, "<f4", None),
    "xmipp/smallStack.mrcs": (4, 4, 64, 64, "<f4", 1.0),
}
VOLUMES = {
    # size, voxel size in Å
    **{
        f"maven/vol_{number}.mrc": (64, 6.55)
        for number in ("018", "288", "291", "306", "388", "390", "442", "457")
    },
    "tomodrgn/warptools_test_box-32_angpix-12_reconstruct.mrc": (32, 12.0024),
}
REFUSED = {
    "mrcfile/EMD-3001.map": (read_volume, "cubic volume .* found 73 × 43 × 25"),
    "mrcfile/EMD-3001.map.bz2": (read_volume, "cubic volume .* found 73 × 43 × 25"),
    "ngl/3pqr-mode0.ccp4": (read_volume, "cubic volume .* found 69 × 100 × 59"),
    "xmipp/smallStack.stk": (read_header, "looks like a SPIDER file; convert it to MRC"),
    "cryosparc-tools/4k_dataset.cs": (read_cs_table, r"no particles \(zero rows\)"),
    "maven/occupancies_expected.csv": (read_particles, r"Expected particles in a \.star, \.cs"),
}
TABLES = {
    # images, box, pixel size in Å, sign, with poses
    "cryodrgn/cryosparc_P12_J24_001_particles.rows0-999.cs": (1000, 180, 2.95, -1, True),
    "cryodrgn/empiar_10076_rows0-3.cs": (4, 320, 1.31, -1, False),
}
OTHERS = {  # read by tests of their own below
    "cryodrgn/ctf1.pkl",
    "cryodrgn/pose.star.pkl",
    "cryodrgn/cryosparc_P12_J24_001_particles.rows0-999.expected.npz",
    "maven/50S_segmented_atoms.npz",
}


def tilt_stacks(zoo):
    return sorted(zoo.glob("tomodrgn/warptools*/Unt_*/*.mrcs"))


def test_no_file_is_left_out(zoo):
    files = {path for path in zoo.glob("*/**/*") if path.is_file()}
    files -= {path for path in files if path.suffix == ".star" or path.name.startswith("LICENSE")}
    found = {path.relative_to(zoo).as_posix() for path in files - set(tilt_stacks(zoo))}
    assert found == {*STACKS, *VOLUMES, *REFUSED, *TABLES, *OTHERS}


@pytest.mark.parametrize("name", STACKS)
def test_stacks_are_read(zoo, name):
    header = read_header(zoo / name)
    promised, there, rows, columns, dtype, pixel_size = STACKS[name]
    assert header.shape == (promised, rows, columns)
    sections = open_sections(header)
    assert (sections.shape, sections.dtype) == ((there, rows, columns), np.dtype(dtype))
    assert np.isfinite(sections).all()
    assert header.voxel_size == (pixel_size and pytest.approx(pixel_size, rel=1e-4))


def test_stacks_of_tilt_images_in_half_precision_are_read(zoo):
    headers = [read_header(path) for path in tilt_stacks(zoo)]
    assert len(headers) == 40
    for header in headers:
        assert (header.shape, header.dtype) == ((37, 32, 32), np.dtype("<f2"))
        assert np.isfinite(open_sections(header)).all()


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_are_read(zoo, name):
    size, voxel_size = VOLUMES[name]
    volume = read_volume(zoo / name)
    assert volume.values.shape == (size,) * 3
    assert volume.voxel_size == pytest.approx(voxel_size, rel=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_by_a_sentence(zoo, name):
    read, sentence = REFUSED[name]
    with pytest.raises(InputError, match=f"{Path(name).name}.*{sentence}|{sentence}.*{name}"):
        read(zoo / name)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read(zoo, name):
    count, box, pixel_size, sign, posed = TABLES[name]
    table = read_cs_table(zoo / name)
    assert (len(table), table.sign, table.rotations is not None) == (count, sign, posed)
    assert set(table.box) == {box}
    np.testing.assert_allclose(table.pixel_size, pixel_size, rtol=1e-4)
    assert table.optics is not None


def test_pickles_and_archives_are_read(zoo):
    ctf = read_ctf_pickle(zoo / "cryodrgn/ctf1.pkl", 5)
    np.testing.assert_allclose(ctf[:, :2], [[300, 1.035]] * 5)
    assert read_poses_pickle(zoo / "cryodrgn/pose.star.pkl", 5).rotations.shape == (5, 3, 3)
    both = zoo / "cryodrgn/cryosparc_P12_J24_001_particles.rows0-999.expected.npz"
    assert read_poses_pickle(both, 1000).shift_fractions.shape == (1000, 2)
    assert read_ctf_pickle(both, 1000).shape == (1000, 9)
    atoms = read_atoms(zoo / "maven/50S_segmented_atoms.npz", hydrogens=True, waters=True)
    assert len(atoms) == 90_291


def test_maps_are_put_in_order_whatever_their_axes(zoo, tmp_path):
    """A cube of the map whose columns run along z, and the same cube as another library has it."""
    raw = (zoo / "mrcfile/EMD-3001.map").read_bytes()
    header = read_header(zoo / "mrcfile/EMD-3001.map")
    cube = open_sections(header)[:24, :24, :24]
    sides = np.array([24, 24, 24], "<i4").tobytes()
    (tmp_path / "cube.map").write_bytes(sides + raw[12 : header.offset] + cube.tobytes())
    values = read_volume(tmp_path / "cube.map").values
    assert header.axes == (3, 1, 2)  # columns, rows, sections along z, x, y
    np.testing.assert_array_equal(values, np.einsum("yxz->zyx", cube))


def test_a_truncated_stack_gives_the_images_it_has(zoo):
    found = read_particles(zoo / "drgnai/M_particles_subset.star", datadir=zoo / "drgnai")
    images = read_images(found, np.arange(len(found)))
    assert images.shape == (5, 128, 128)
    assert (images.std(axis=(1, 2)) > 0).all()
