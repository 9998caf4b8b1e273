from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.data.star import read_star_table, write_particles
from recovar.data.star_blocks import StarTable, read_star, write_star
from recovar.errors import InputError

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=0, max_size=12
).filter(lambda text: '"' not in text or "'" not in text)

PARTICLES = """data_particles

loop_
_rlnImageName
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOpticsGroup
{labels}
1@a.mrcs 10 20 30 7 {first}
2@a.mrcs 40 50 60 3 {second}
"""
OPTICS = """data_optics

loop_
_rlnOpticsGroup
_rlnImagePixelSize
_rlnVoltage
{labels}
3 2.0 200 {first}
7 1.0 300 {second}
"""


def star(tmp_path, text):
    (tmp_path / "p.star").write_text(text)
    return tmp_path / "p.star"


def particles(labels="_x", first="1", second="1"):
    return PARTICLES.format(labels=labels, first=first, second=second)


def optics(labels="_x", first="1", second="1"):
    return OPTICS.format(labels=labels, first=first, second=second)


@given(
    rows=st.lists(st.tuples(TEXTS, st.floats(allow_nan=False)), min_size=1, max_size=5),
    crlf=st.booleans(),
)
def test_tables_read_back_unchanged(tmp_path_factory, rows, crlf):
    path = tmp_path_factory.mktemp("star") / "t.star"
    texts, numbers = [row[0] for row in rows], np.array([row[1] for row in rows])
    columns = {"rlnMicrographName": texts, "rlnX": numbers, "rlnY": np.arange(len(rows))}
    pair = StarTable("general", {"rlnFlag": np.array([1])}, loop=False)
    write_star(path, [StarTable("", columns), pair])
    if crlf:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    table, general = read_star(path)
    assert list(table.columns["rlnMicrographName"]) == texts
    assert [float(x) for x in table.columns["rlnX"]] == numbers.tolist()
    assert [int(y) for y in table.columns["rlnY"]] == list(range(len(rows)))
    assert (table.name, general.name, general.loop) == ("", "general", False)
    assert general.columns["rlnFlag"] == ["1"]


@given(seed=st.integers(0, 2**16), premultiplied=st.booleans())
def test_particles_read_back_unchanged(tmp_path_factory, make_table, seed, premultiplied):
    path = tmp_path_factory.mktemp("star") / "p.star"
    table = make_table(seed=seed, premultiplied=premultiplied)
    voltage = np.where(np.arange(len(table)) < 2, 200, 300).astype(np.float32)
    optics = table.optics
    table = replace(table, optics=type(optics)(**(vars(optics) | {"voltage": voltage})))
    write_particles(path, table)
    back = read_star_table(path)
    assert back.stacks == table.stacks
    for name in ("stack_index", "slice_index", "identity", "box", "pixel_size", "half"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name), err_msg=name)
    np.testing.assert_allclose(back.rotations, table.rotations, atol=1e-12)
    np.testing.assert_allclose(back.shifts, table.shifts, atol=1e-12)
    for name, value in vars(table.optics).items():
        np.testing.assert_allclose(getattr(back.optics, name), value, rtol=1e-6, err_msg=name)
    assert back.premultiplied == premultiplied


@given(tilt=st.sampled_from([0.0, 180.0]), rot=st.floats(-180, 180), psi=st.floats(-180, 180))
def test_views_along_the_axis_read_back_unchanged(tmp_path_factory, make_table, tilt, rot, psi):
    from_file = tmp_path_factory.mktemp("star") / "p.star"
    write_star(
        from_file,
        [
            StarTable(
                "",
                {
                    "rlnImageName": ["1@a.mrcs"],
                    "rlnAngleRot": np.array([rot]),
                    "rlnAngleTilt": np.array([tilt]),
                    "rlnAnglePsi": np.array([psi]),
                },
            )
        ],
    )
    rotations = read_star_table(from_file).rotations
    write_particles(from_file, make_table(2, rotations=np.repeat(rotations, 2, axis=0)))
    np.testing.assert_allclose(read_star_table(from_file).rotations[1], rotations[0], atol=1e-9)


def test_the_euler_convention_is_that_of_relion(tmp_path):
    text = (
        "data_\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n1@a 37 61 -118\n"
    )
    wanted = [
        [0.349598, -0.842129, 0.410609],
        [0.624400, -0.117323, -0.772243],
        [0.698502, 0.526359, 0.484810],
    ]
    np.testing.assert_allclose(
        read_star_table(star(tmp_path, text)).rotations[0], wanted, atol=1e-6
    )


@pytest.mark.parametrize("reversed_blocks", [False, True])
def test_optics_groups_are_matched_by_value_in_any_order(tmp_path, reversed_blocks):
    blocks = [optics(), particles()]
    table = read_star_table(star(tmp_path, "\n".join(blocks[::-1] if reversed_blocks else blocks)))
    assert table.pixel_size.tolist() == [1.0, 2.0]


def test_images_of_one_micrograph_or_optics_group_share_a_number(tmp_path):
    text = particles(labels="_rlnMicrographName", first="b.mrc", second="a.mrc")
    table = read_star_table(star(tmp_path, text + "3@a.mrcs 40 50 60 7 b.mrc\n"))
    assert table.micrograph.tolist() == [0, 1, 0]
    assert table.optics_group.tolist() == [0, 1, 0]
    assert read_star_table(star(tmp_path, particles())).micrograph is None


def test_optics_take_precedence_over_particles_and_given_values_over_both(tmp_path):
    path = star(tmp_path, optics() + particles("_rlnImagePixelSize", "9", "9"))
    assert read_star_table(path).pixel_size.tolist() == [1.0, 2.0]
    assert read_star_table(path, {"rlnImagePixelSize": 4.0}).pixel_size.tolist() == [4.0, 4.0]


@pytest.mark.parametrize("tilts", [False, True])
def test_envelopes_scales_and_tilts_are_written_as_others_read_them(tmp_path, make_table, tilts):
    """RELION damps single particles by positive values, Warp tilt series by negative ones."""
    table = make_table()
    envelope, scale = np.linspace(0, 50, 6, dtype="f4"), np.linspace(0.5, 1, 6, dtype="f4")
    table = replace(table, optics=replace(table.optics, b_factor=envelope, scale=scale))
    if tilts:
        dose = envelope / 4.0
        table = replace(table, particle=np.arange(6) // 3 + 9, dose=dose.astype(np.float64))
    write_particles(tmp_path / "p.star", table)
    optics = read_star_table(tmp_path / "p.star").optics
    np.testing.assert_array_equal(optics.b_factor, envelope)
    np.testing.assert_array_equal(optics.scale, scale)
    columns = read_star(tmp_path / "p.star")[1].columns
    written = np.array(columns["rlnCtfBfactor"], np.float32)
    np.testing.assert_array_equal(written, -envelope if tilts else envelope)
    assert ("rlnGroupName" in columns) == tilts
    if tilts:
        names = ["particle_09"] * 3 + ["particle_10"] * 3
        assert columns["rlnGroupName"] == names
        assert columns["rlnMicrographName"] == [f"tilt_{number}" for number in range(6)]
        np.testing.assert_array_equal(np.array(columns["rlnMicrographPreExposure"], float), dose)


def test_an_envelope_that_does_nothing_is_not_written(tmp_path, make_table):
    write_particles(tmp_path / "p.star", make_table())
    columns = read_star(tmp_path / "p.star")[1].columns
    assert "rlnCtfBfactor" not in columns
    assert "rlnCtfScalefactor" not in columns


def test_refined_b_factors_keep_their_signs(tmp_path, make_table):
    """RELION finds some images sharper than others; all of one sign mean a dose."""
    table = make_table()
    both = np.array([-1, 0, 0, 0, 0, 2], np.float32)
    table = replace(table, optics=replace(table.optics, b_factor=both))
    write_particles(tmp_path / "p.star", table)
    np.testing.assert_array_equal(read_star_table(tmp_path / "p.star").optics.b_factor, both)


def test_long_tables_are_written_in_parts(tmp_path, monkeypatch, make_table):
    monkeypatch.setattr("recovar.data.star_blocks._ROWS", 4)
    table = make_table(count=9)
    write_particles(tmp_path / "p.star", table)
    back = read_star_table(tmp_path / "p.star")
    assert back.identity.tolist() == table.identity.tolist()
    np.testing.assert_array_equal(back.shifts, table.shifts)


def test_shifts_in_pixels_become_angstrom(tmp_path):
    path = star(tmp_path, optics() + particles("_rlnOriginX\n_rlnOriginY", "1 2", "3 4"))
    np.testing.assert_allclose(read_star_table(path).shifts, [[1, 2], [6, 8]])


def test_missing_shifts_are_zero(tmp_path):
    assert not read_star_table(star(tmp_path, optics() + particles())).shifts.any()


def test_the_pixel_size_of_relion_30_comes_from_the_magnification(tmp_path):
    labels = "_rlnMagnification\n_rlnDetectorPixelSize"
    path = star(tmp_path, particles(labels, "38168 5", "38168 5"))
    np.testing.assert_allclose(read_star_table(path).pixel_size, 1.31, rtol=1e-5)


@pytest.mark.parametrize(("subsets", "half"), [("12", [0, 1]), ("11", None), ("01", None)])
def test_random_subsets_are_half_sets_only_if_both_are_there(tmp_path, subsets, half):
    found = read_star_table(star(tmp_path, particles("_rlnRandomSubset", *subsets))).half
    assert (None if found is None else found.tolist()) == half


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer"),
        ("hello", "not a STAR file that can be read"),
        ("data_a\nloop_\n_b\n_c\n1 2 3\n", "not a STAR file that can be read"),
        ("data_a\n_b 1\n", "expected a particle table with _rlnImageName, found only.*data_a"),
        ("data_\nloop_\n_rlnImageName\n\n", "has no particles"),
        (particles().replace("1@a", "0@a"), r"row 1: expected an image name.*found '0@a.mrcs'"),
        (
            particles().replace(" 50 ", " x "),
            "row 2: expected a number for _rlnAngleTilt, found 'x'",
        ),
        (optics().replace("\n7 ", "\n8 ") + particles(), "row 1: optics group 7 is not among"),
        (
            optics() + particles().replace("_rlnOpticsGroup", "_g"),
            "expected _rlnOpticsGroup in data_p",
        ),
        (
            optics()
            + particles(
                "_rlnOriginX\n_rlnOriginY\n_rlnOriginXAngst\n_rlnOriginYAngst", "1 1 1 1", "1 1 1 1"
            ),
            r"row 2: _rlnOriginX/Y .* disagree",
        ),
        (particles("_rlnOriginXAngst"), "expected both _rlnOriginXAngst and _rlnOriginYAngst"),
        (
            particles("_rlnCtfDataArePhaseFlipped\n_rlnCtfDataAreCtfPremultiplied", "1 1", "1 1"),
            "both set, but images are corrected once",
        ),
        ("data_a\n" + particles()[15:] + "data_b\n" + particles()[15:], "found data_a of 2 rows, "),
        (particles().replace("1@a", "9999999999@a"), r"row 1: expected an image name"),
        (particles().replace("1@a", "9" * 5000 + "@a"), r"row 1: expected an image name"),
        (particles("_rlnCtfDataAreCtfPremultiplied", "1", "0"), "set for some images and not for"),
        (particles("_rlnCtfImage"), "subtomograms, which are volumes"),
        (particles("_rlnImageDimensionality", "3", "3"), "subtomograms are not read yet"),
        ("data_general\n_rlnTomoSubTomosAre2DStacks 1\n" + particles(), "a stack of tilt images"),
        (particles("_rlnTomoName"), "found a table of subtomograms. Subtomograms are not read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_star_table(star(tmp_path, text))


def test_what_is_missing_is_kept_for_the_reader_to_say(tmp_path):
    table = read_star_table(star(tmp_path, particles("_rlnOriginX\n_rlnOriginY", "1 1", "1 1")))
    assert table.rotations is None
    assert table.no_poses == "_rlnOriginX is in pixels and the file states no pixel size"
    assert table.no_optics.startswith("missing columns: _rlnDefocusU")


@pytest.mark.parametrize(
    ("labels", "value", "said"),
    [
        ("_rlnBeamTiltX\n_rlnBeamTiltY", "0.3 -0.4", "beam tilt up to 0.5 mrad (1.2 rad at 3 Å)"),
        ("_rlnOddZernike", "[0.5,-2e-1,0]", "odd Zernike coefficients up to 0.5"),
        ("_rlnEvenZernike", "'[0.5, -12]'", "even Zernike coefficients up to 12"),
        (
            "_rlnMagMat00\n_rlnMagMat01\n_rlnMagMat10\n_rlnMagMat11",
            "1.01 0 0 1.002",
            "magnification that is off by up to 1 %",
        ),
        ("_rlnBeamTiltX\n_rlnBeamTiltY", "0.000 0", None),
        ("_rlnOddZernike\n_rlnEvenZernike", "[] [0,0.0]", None),
        ("_rlnMagMat00\n_rlnMagMat01\n_rlnMagMat10\n_rlnMagMat11", "1 0 0 1", None),
    ],
)
def test_aberrations_that_are_ignored_are_said_with_their_size(
    tmp_path, caplog, labels, value, said
):
    read_star_table(star(tmp_path, particles(labels, value, value)))
    assert ("are ignored" in caplog.text) == (said is not None)
    assert said is None or said in caplog.text


def test_optics_are_known_by_what_they_hold_where_they_have_another_name(tmp_path):
    path = star(tmp_path, optics().replace("data_optics", "data_block_1") + particles())
    assert read_star_table(path).pixel_size.tolist() == [1.0, 2.0]


def test_corrections_of_images_are_read_and_written(tmp_path, make_table):
    table = read_star_table(
        star(tmp_path, particles("_rlnCtfDataArePhaseFlipped", first="1", second="1"))
    )
    assert (table.phase_flipped, table.premultiplied) == (True, False)
    write_particles(tmp_path / "q.star", make_table(phase_flipped=True))
    assert read_star_table(tmp_path / "q.star").phase_flipped


def test_line_ends_in_values_are_not_written(tmp_path):
    with pytest.raises(InputError, match="which STAR cannot hold"):
        write_star(tmp_path / "t.star", [StarTable("", {"a": ["x\ny"]})])
    assert not list(tmp_path.iterdir())


def tilts(groups="_rlnGroupName", doses="0 3 6 0 3"):
    """Rows of three tilts of one particle and two of another."""
    labels = "\n".join(filter(None, ["_rlnImageName", groups, "_rlnDose"]))
    rows = zip(range(1, 6), ["2"] * 3 + ["1"] * 2, doses.split(), strict=True)
    text = "\n".join(
        " ".join(filter(None, [f"{k}@a.mrcs", groups and name, dose])) for k, name, dose in rows
    )
    return f"data_\nloop_\n{labels}\n{text}\n"


@pytest.mark.parametrize(
    ("label", "values"),
    [
        ("_rlnMicrographPreExposure", "0 3 6 0 3"),
        ("_rlnCtfBfactor", "-6 -18 -30 -6 -18"),
        ("_rlnTomoNominalStageTiltAngle", "0 3 -3 0 3"),
    ],
)
@pytest.mark.parametrize("group", ["_rlnGroupName", "_rlnGroupNumber"])
def test_images_of_a_group_that_differ_in_dose_or_tilt_are_of_one_particle(
    tmp_path, label, values, group
):
    text = tilts(group, values).replace("_rlnDose", label)
    table = read_star_table(star(tmp_path, text))
    assert table.particle.tolist() == [1, 1, 1, 0, 0]
    exposed = label == "_rlnMicrographPreExposure"
    assert (None if table.dose is None else table.dose.tolist()) == (
        [0, 3, 6, 0, 3] if exposed else None
    )


@pytest.mark.parametrize(
    ("label", "values"),
    [
        ("_rlnMicrographPreExposure", "1 1 1 2 2"),
        ("_rlnCtfBfactor", "-6 2 0 4 5"),
        ("_rlnCtfScalefactor", "1 .9 .8 1 .9"),
        ("_rlnCtfBfactor", "0 0 0 0 0"),
    ],
)
def test_groups_of_micrographs_are_no_particles(tmp_path, label, values):
    text = tilts("_rlnGroupName", values).replace("_rlnDose", label)
    assert read_star_table(star(tmp_path, text)).particle is None


def test_names_of_particles_of_tomograms_tell_tilts_in_any_case(tmp_path):
    text = tilts("_rlnTomoParticleName", "5 6 7 8 9").replace("_rlnDose", "_rlnDefocusU")
    assert read_star_table(star(tmp_path, text)).particle.tolist() == [1, 1, 1, 0, 0]


def test_doses_without_particles_are_refused(tmp_path):
    text = tilts("").replace("_rlnDose", "_rlnMicrographPreExposure")
    with pytest.raises(InputError, match=r"no column tells which particle.*Add _rlnGroupName"):
        read_star_table(star(tmp_path, text))


def test_tilted_images_are_weaker_by_the_cosine_unless_their_scale_is_stated(tmp_path, make_table):
    write_particles(tmp_path / "p.star", replace(make_table(), particle=np.arange(6) // 3))
    general, table = read_star(tmp_path / "p.star")
    columns = dict(table.columns) | {"rlnTomoNominalStageTiltAngle": np.array([0, 60, -60] * 2)}
    write_star(tmp_path / "q.star", [general, StarTable("particles", columns)])
    scale = read_star_table(tmp_path / "q.star").optics.scale
    np.testing.assert_allclose(scale, [1, 0.5, 0.5] * 2, rtol=1e-6)
    columns["rlnCtfScalefactor"] = np.full(6, 0.7)
    write_star(tmp_path / "q.star", [general, StarTable("particles", columns)])
    np.testing.assert_allclose(read_star_table(tmp_path / "q.star").optics.scale, 0.7, rtol=1e-6)
