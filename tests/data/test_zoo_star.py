"""Every STAR file of other programs: what is understood of it, or why it is refused."""

import numpy as np
import pytest

from recovar.data.legacy import read_ctf_pickle, read_poses_pickle
from recovar.data.star import read_star_table
from recovar.errors import InputError

READ = {
    # images, box, pixel size in Å, with poses, with transfer functions
    "aspire/sample_particles_relion30.rows0-7.star": (8, None, 1.338, True, True),
    "cryodrgn/FinalRefinement-OriginalParticles-PfCRT.star": (5, None, 1.035, True, False),
    "cryodrgn/empiar_10076_rows0-3.star": (4, None, 1.31, False, True),
    "cryodrgn/relion31.star": (5, 256, 2.806, True, True),
    "cryodrgn/relion31.v2.star": (5, 256, 2.806, True, True),
    "cryodrgn/relion5.star": (17, 448, 0.89, True, True),
    "cryojax/test_starfile.star": (3, 16, 12.0, True, True),
    "drgnai/M_particles_subset.star": (5, None, 3.9, True, True),
    "iospi/test.star": (452, 128, 1.911, True, True),
    "simplecryoem/pyem.star": (24, 64, 3.54, True, True),
    "simplecryoem/relion_proj_batch.star": (24, 64, 3.54, True, True),
}

TILT_STACKS = "subtomograms of RELION 5, each of which is a stack of tilt images"
VOLUMES = "subtomograms, which are volumes"
OPTIMISATION_SET = "an optimisation set of RELION"
TILT_SERIES = "a table of tilt series: their micrographs and geometry"
WARP = "tomodrgn/warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
REFUSED = {
    "cryocat/R5_tutorial_run_data.rows0-1499.star": TILT_STACKS,
    "cryocat/R5_tutorial_run_tomograms.star": "a table of tomograms",
    "cryocat/relion5_TS_01_tilt.star": TILT_SERIES,
    "cryocat/relion_3.0.star": VOLUMES,
    "cryocat/relion_3.1_optics.star": VOLUMES,
    "cryocat/relion_3.1_optics2.star": VOLUMES,
    "cryocat/relion_4.0.star": VOLUMES,
    "cryolike/particle_data.star": "which does not name the images",
    "cryosparc-tools/job096_run_data.star": "git-LFS pointer",
    "cylindra/run_it050_data.star": VOLUMES,
    "cylindra/run_it050_optimisation_set.star": OPTIMISATION_SET,
    "dynamo2m/relion3.1.star": VOLUMES,
    "emtable/nma.star": "a table of Xmipp",
    "relion/220728_TS_01.star": TILT_SERIES,
    "relion/mtf_k2_300kV.star": "the transfer function of a detector",
    "relion/tilt_series.star": "a table of tomograms",
    "starfile/default_pipeline.star": "RELION's record of a project",
    "starfile/one_loop.star": VOLUMES,
    "starfile/postprocess.star": "a result of post-processing",
    "starfile/rln3.1_data_style.star": "one table of particles, found data_block_2 of 2 rows, data",
    "starfile/run_it025_optimiser_3D.star": "which it says is Class3D/job020/run_it025_data.star",
    "starfile/run_it025_sampling_2D.star": "the sampling of orientations",
    f"{WARP}.star": TILT_STACKS,
    f"{WARP}_optimisation_set.star": OPTIMISATION_SET,
    f"{WARP}_tomograms.star": TILT_SERIES,
}


def test_no_file_is_left_out(zoo):
    found = {f"{path.parent.name}/{path.name}" for path in zoo.glob("*/*.star")}
    assert found == {*READ, *REFUSED}


@pytest.mark.parametrize("name", READ)
def test_real_particle_tables_are_read(zoo, name):
    images, box, pixel_size, poses, optics = READ[name]
    table = read_star_table(zoo / name)
    assert len(table) == images
    assert (None if table.box is None else set(table.box.tolist())) == (box and {box})
    assert table.pixel_size == pytest.approx(pixel_size, rel=1e-5)
    assert (table.rotations is not None, table.optics is not None) == (poses, optics)
    assert table.particle is None


@pytest.mark.parametrize("name", REFUSED)
def test_real_files_that_are_not_particles_are_told_for_what_they_are(zoo, name):
    with pytest.raises(InputError, match=REFUSED[name]):
        read_star_table(zoo / name)


def test_real_aberrations_are_told_with_their_size(zoo, caplog):
    read_star_table(zoo / "cryodrgn/relion5.star")
    assert "beam tilt up to 0.046 mrad (0.23 rad at 3 Å); odd Zernike" in caplog.text
    assert "up to 1.8; even" in caplog.text
    assert "off by up to 0.22 %" in caplog.text


def test_cryodrgn_reads_the_same_from_a_relion_30_file(zoo):
    path = zoo / "cryodrgn/FinalRefinement-OriginalParticles-PfCRT.star"
    table = read_star_table(path, {"rlnAmplitudeContrast": 0.1})
    poses = read_poses_pickle(zoo / "cryodrgn/pose.star.pkl", 5)
    np.testing.assert_allclose(table.rotations, poses.rotations, atol=1e-9)
    np.testing.assert_allclose(table.shifts / (300 * 1.035), poses.shift_fractions, atol=1e-9)
    ctf = read_ctf_pickle(zoo / "cryodrgn/ctf1.pkl", 5)
    assert table.pixel_size.tolist() == pytest.approx(ctf[:, 1], rel=1e-6)
    found = [np.asarray(value, float) for value in vars(table.optics).values()]
    found[2], found[6] = np.rad2deg(found[2]), np.rad2deg(found[6])
    np.testing.assert_allclose(np.stack(found[:7], axis=1), ctf[:, 2:], rtol=1e-6)


def test_real_tilts_are_damped_by_their_dose(zoo):
    """M writes −4 times the dose up to the middle of an exposure, and the cosine of the tilt.

    Tilts 11, 20, 5, 8 and 14 of their series, with 3.26 electrons per Å² each.
    """
    optics = read_star_table(zoo / "drgnai/M_particles_subset.star").optics
    number = np.array([11, 20, 5, 8, 14])
    np.testing.assert_allclose(optics.b_factor, 4 * 3.26 * (number - 0.5), rtol=1e-6)
    angles = np.deg2rad([-15.0, -30.0, 6.0, -12.0, 21.0])
    np.testing.assert_allclose(optics.scale, np.cos(angles), atol=5e-5)


@pytest.mark.parametrize(
    "name",
    [
        "simplecryoem/pyem.star",
        "simplecryoem/relion_proj_batch.star",
        "iospi/test.star",
        "cryodrgn/relion31.star",
        "cryodrgn/relion5.star",
        "aspire/sample_particles_relion30.rows0-7.star",
    ],
)
def test_real_single_particles_have_no_envelope(zoo, name):
    """Their columns hold 0 and 1, so the transfer function is what it is without them."""
    optics = read_star_table(zoo / name).optics
    assert not optics.b_factor.any()
    np.testing.assert_array_equal(optics.scale, 1)


def test_the_order_of_blocks_does_not_matter_in_a_real_file(zoo):
    first = read_star_table(zoo / "cryodrgn/relion31.star")
    second = read_star_table(zoo / "cryodrgn/relion31.v2.star")
    np.testing.assert_array_equal(first.rotations, second.rotations)
    np.testing.assert_array_equal(first.pixel_size, [2.806] * 5)
