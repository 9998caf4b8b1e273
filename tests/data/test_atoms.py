import gzip
import sys
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import gemmi
import numpy as np
import pytest

from recovar.data.atoms import POINT, Atoms, find_structure, read_atoms, read_trajectory
from recovar.errors import InputError

# A serine with a side chain in two places, zinc, and water, and the dimer they belong to.
PDB = """\
REMARK 350 BIOMOLECULE: 1
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A, B
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        5.00000
ATOM      1  N   SER A   1      11.000  12.000  13.000  1.00 20.00           N
ATOM      2  CA  SER A   1      12.000  12.000  13.000  0.75 21.00           C
ATOM      3  CB ASER A   1      12.500  13.000  13.000  0.40 22.00           C
ATOM      4  CB BSER A   1      12.500  12.000  14.000  0.50 23.00           C
ATOM      5  OG ASER A   1      13.500  13.000  13.000  0.40 24.00           O
ATOM      6  OG BSER A   1      13.500  12.000  14.000  0.50 25.00           O
ATOM      7  H   SER A   1      10.000  12.000  13.000  1.00 20.00           D
HETATM    8 ZN    ZN B   2       1.000   2.000   3.000  1.00 30.00          ZN
HETATM    9  O   HOH B   3       4.000   5.000   6.000  1.00 40.00           O
END
"""

CIF = """\
data_made
loop_
_pdbx_struct_assembly.id
_pdbx_struct_assembly.details
_pdbx_struct_assembly.method_details
_pdbx_struct_assembly.oligomeric_details
_pdbx_struct_assembly.oligomeric_count
1 author_defined_assembly ? monomeric 1
trimer author_defined_assembly ? trimeric 3
loop_
_pdbx_struct_assembly_gen.assembly_id
_pdbx_struct_assembly_gen.oper_expression
_pdbx_struct_assembly_gen.asym_id_list
1 1 A
trimer 1,2,3 A
loop_
_pdbx_struct_oper_list.id
_pdbx_struct_oper_list.type
_pdbx_struct_oper_list.matrix[1][1]
_pdbx_struct_oper_list.matrix[1][2]
_pdbx_struct_oper_list.matrix[1][3]
_pdbx_struct_oper_list.vector[1]
_pdbx_struct_oper_list.matrix[2][1]
_pdbx_struct_oper_list.matrix[2][2]
_pdbx_struct_oper_list.matrix[2][3]
_pdbx_struct_oper_list.vector[2]
_pdbx_struct_oper_list.matrix[3][1]
_pdbx_struct_oper_list.matrix[3][2]
_pdbx_struct_oper_list.matrix[3][3]
_pdbx_struct_oper_list.vector[3]
1 'identity operation' 1 0 0 0 0 1 0 0 0 0 1 0
2 'point symmetry operation' 0 -1 0 0 1 0 0 0 0 0 1 0
3 'helical symmetry operation' 1 0 0 0 0 1 0 0 0 0 1 7
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
ATOM 1 C  CA . ALA A 1 1 1.0 2.0 3.0 1.0 10.0 41 A 1
ATOM 2 SE SE . MSE A 1 2 4.0 5.0 6.0 0.5 20.0 42 A 1
"""


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


@pytest.mark.parametrize("name", ["made.pdb", "made.ent", "made.pdb.gz"])
def test_one_conformation_is_kept_and_stands_for_the_other(write, name):
    atoms = read_atoms(write(name, PDB))
    assert atoms.elements.tolist() == ["N", "C", "C", "O", "Zn"]
    assert atoms.names.tolist() == ["N", "CA", "CB", "OG", "ZN"]
    assert atoms.chains.tolist() == ["A", "A", "A", "A", "B"]
    assert atoms.residues.tolist() == [1, 1, 1, 1, 2]
    np.testing.assert_allclose(atoms.b_factors, [20, 21, 23, 25, 30])
    np.testing.assert_allclose(atoms.occupancy, [1, 0.75, 0.9, 0.9, 1])
    np.testing.assert_array_equal(atoms.positions[2], [12.5, 12, 14])


def test_of_conformations_as_likely_the_first_is_kept(write):
    atoms = read_atoms(write("even.pdb", PDB.replace("0.40", "0.50")))
    np.testing.assert_array_equal(atoms.positions[2], [12.5, 13, 13])
    np.testing.assert_allclose(atoms.occupancy[2:4], 1)


def test_a_residue_that_is_sometimes_another_is_the_more_likely_one(write):
    text = """\
ATOM      1  CA ASER A   1      12.000  12.000  13.000  0.30 21.00           C
ATOM      2  CA BTHR A   1      12.500  12.000  13.000  0.70 22.00           C
ATOM      3  CG2BTHR A   1      12.500  14.000  13.000  0.70 22.00           C
"""
    atoms = read_atoms(write("mixed.pdb", text))
    assert atoms.names.tolist() == ["CA", "CG2"]
    np.testing.assert_allclose(atoms.occupancy, [1, 0.7])


def test_hydrogens_and_waters_are_kept_on_request(write):
    path = write("made.pdb", PDB)
    assert "D" in read_atoms(path, hydrogens=True).elements
    assert len(read_atoms(path, hydrogens=True)) == 6
    assert read_atoms(path, waters=True).elements.tolist()[-2:] == ["Zn", "O"]


def test_elements_that_old_files_lack_follow_from_the_names(write):
    text = "\n".join(line[:66] for line in PDB.splitlines() if "HOH" not in line)
    atoms = read_atoms(write("old.pdb", text))
    assert atoms.elements.tolist() == ["N", "C", "C", "O", "Zn"]


def test_assemblies_are_built_by_name_with_chains_of_their_own(write):
    alone = read_atoms(write("made.pdb", PDB))
    both = read_atoms(write("made.pdb", PDB), assembly="1")
    assert sorted(set(both.chains)) == ["A1", "A2", "B1", "B2"]
    np.testing.assert_allclose(both.positions[:5], alone.positions)
    np.testing.assert_allclose(both.positions[5:], alone.positions * [-1, -1, 1] + [0, 0, 5])


def test_assemblies_of_mmcif_are_those_of_its_operators(write):
    path = write("made.cif.gz", CIF)
    assert read_atoms(path).residues.tolist() == [41, 42]
    atoms = read_atoms(path, assembly="trimer")
    assert atoms.elements.tolist() == ["C", "Se"] * 3
    np.testing.assert_allclose(atoms.positions[::2], [[1, 2, 3], [-2, 1, 3], [1, 2, 10]])
    assert atoms.chains.tolist() == ["A1", "A1", "A2", "A2", "A3", "A3"]
    with pytest.raises(InputError, match=r"assemblies \(1, trimer\), got '2'"):
        read_atoms(path, assembly="2")


def models(*names):
    atom = "ATOM      1  {}  ALA A   1       1.000   1.000   {}.000  1.00  0.00           C\n"
    return "".join(
        f"MODEL        {number}\n{atom.format(name, number)}ENDMDL\n"
        for number, name in enumerate(names, 1)
    )


def test_models_are_chosen_by_number(write):
    path = write("two.pdb", models("CA", "CA"))
    assert read_atoms(path).positions[0, 2] == 1
    assert read_atoms(path, model=1).positions[0, 2] == 2
    with pytest.raises(InputError, match="model from 0 to 1, for there are 2, got 2"):
        read_atoms(path, model=2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("          ZN\n", "           X\n", r"atom 8 \(ZN\): expected a chemical element.*'X'"),
        ("  3.000  1.00 30", "    nan  1.00 30", "atom 8 .*finite coordinates"),
        ("1.00 30.00", "1.00-30.00", r"atom 8 .*B-factor of 0 or more, found -30.0"),
        ("1.00 30.00", "7.00 30.00", r"atom 8 .*occupancy from 0 to 1, found 7.0"),
    ],
)
def test_an_atom_that_cannot_scatter_is_refused_by_its_number(write, old, new, message):
    assert old in PDB
    with pytest.raises(InputError, match=message):
        read_atoms(write("wrong.pdb", PDB.replace(old, new)))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.pdb", "", "found no atoms"),
        ("empty.cif", "", "cannot be read as a structure"),
        ("letter.pdb", "Dear colleague,\n", "found no atoms"),
        ("ligand.cif", "data_x\n_cell.length_a 1\n", "found no atoms"),
        ("broken.cif", "Dear colleague,\n", "cannot be read as a structure"),
        ("water.pdb", PDB.splitlines()[-2] + "\n", "other than hydrogens and waters"),
        ("map.mrc", "", "name that ends in .cif"),
    ],
)
def test_files_without_a_molecule_are_refused(write, name, text, message):
    with pytest.raises(InputError, match=message):
        read_atoms(write(name, text))


def test_occupancies_of_zero_everywhere_are_refused(write):
    text = "ATOM      1  CA  ALA A   1       1.000   1.000   1.000  0.00  0.00           C\n"
    with pytest.raises(InputError, match="found 0 for every atom"):
        read_atoms(write("none.pdb", text))


def test_a_missing_file_and_a_cut_one_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_atoms(tmp_path / "none.pdb")
    whole = gzip.compress(CIF.encode())
    (tmp_path / "cut.cif.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        read_atoms(tmp_path / "cut.cif.gz")


def arrays(**changes):
    values = {
        "xyz": np.arange(24, dtype=np.float32).reshape(2, 4, 3),
        "element": np.array(["C", "H", "O", POINT]),
        "resname": np.array(["ALA", "ALA", "HOH", "DUM"]),
        "resid": np.array([1, 1, 2, 3]),
    }
    return values | changes


def test_arrays_give_atoms_and_frames(tmp_path):
    np.savez(tmp_path / "made.npz", **arrays())
    trajectory = read_trajectory(tmp_path / "made.npz")
    assert len(trajectory) == 2
    np.testing.assert_array_equal(trajectory.frames, arrays()["xyz"][:, [0, 3]])
    second = read_atoms(tmp_path / "made.npz", model=1)
    np.testing.assert_array_equal(second.positions, trajectory.frames[1])
    assert second.elements.tolist() == ["C", POINT]
    assert second.residues.tolist() == [1, 3]
    np.savez(tmp_path / "one.npz", xyz=arrays()["xyz"][0], element=arrays()["element"])
    assert len(read_atoms(tmp_path / "one.npz", hydrogens=True)) == 4
    with pytest.raises(InputError, match="arrays have none"):
        read_atoms(tmp_path / "one.npz", assembly="1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xyz": np.zeros((2, 5, 3))}, "for the 4 atoms"),
        ({"xyz": np.zeros((2, 4, 3), int)}, "found int64"),
        ({"xyz": np.full((2, 4, 3), np.nan)}, "atom 1: expected finite"),
        ({"xyz": np.zeros((0, 4, 3))}, "expected frames, found none"),
        ({"element": np.array(["C", "C", "Og", "C"]), "resname": np.full(4, "UNK")}, "3.*'Og'"),
        ({"resid": np.arange(3)}, r"resid of shape \(4,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    np.savez(tmp_path / "wrong.npz", **arrays(**changes))
    with pytest.raises(InputError, match=message):
        read_trajectory(tmp_path / "wrong.npz")


def test_arrays_without_elements_are_refused(tmp_path):
    np.savez(tmp_path / "bare.npz", xyz=np.zeros((4, 3)))
    with pytest.raises(InputError, match="arrays xyz and element, found xyz"):
        read_atoms(tmp_path / "bare.npz")


def test_a_frame_that_is_not_finite_is_named(tmp_path):
    places = arrays()["xyz"].copy()
    places[1, 0] = np.inf
    np.savez(tmp_path / "wrong.npz", **arrays(xyz=places))
    with pytest.raises(InputError, match="frame 1: expected finite"):
        read_trajectory(tmp_path / "wrong.npz")


def test_models_are_frames(write):
    trajectory = read_trajectory(write("two.pdb", models("CA", "CA")))
    np.testing.assert_array_equal(trajectory.frames[:, 0], [[1, 1, 1], [1, 1, 2]])
    assert trajectory.atoms.names.tolist() == ["CA"]


def test_models_with_other_atoms_are_refused(write):
    text = models("CA", "CA", "CB")
    with pytest.raises(InputError, match="model 3 has others"):
        read_trajectory(write("wrong.pdb", text))


def test_a_topology_is_refused_where_it_is_not_needed(write):
    path = write("two.pdb", models("CA", "CA"))
    with pytest.raises(InputError, match="Leave out the topology"):
        read_trajectory(path, path)


@pytest.mark.parametrize("suffix", [".dcd", ".xtc"])
def test_trajectories_are_in_angstrom_and_without_hydrogens(write, tmp_path, suffix):
    mdtraj = pytest.importorskip("mdtraj")
    topology = write("made.pdb", PDB)
    known = mdtraj.load_topology(str(topology))
    names = [atom.name for atom in known.atoms]
    places = np.random.default_rng(0).normal(size=(3, known.n_atoms, 3)).astype(np.float32)
    mdtraj.Trajectory(places, known).save(str(tmp_path / f"made{suffix}"))
    trajectory = read_trajectory(tmp_path / f"made{suffix}", topology)
    assert trajectory.atoms.elements.tolist() == ["N", "C", "C", "O", "Zn"]
    assert trajectory.atoms.chains.tolist() == ["A", "A", "A", "A", "B"]
    rows = [names.index(name) for name in trajectory.atoms.names]
    # XTC rounds to a hundredth of an ångström.
    np.testing.assert_allclose(trajectory.frames, 10 * places[:, rows], atol=6e-3)


def test_a_trajectory_that_cannot_be_read_is_refused(write, tmp_path):
    pytest.importorskip("mdtraj")
    path = write("made.xtc", "Dear colleague,\n")
    with pytest.raises(InputError, match="Give a topology too"):
        read_trajectory(path)
    with pytest.raises(InputError, match="mdtraj cannot read"):
        read_trajectory(path, write("made.pdb", PDB))
    with pytest.raises(InputError, match="Expected a file at"):
        read_trajectory(path, tmp_path / "none.pdb")


def test_without_mdtraj_its_extra_is_named(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "mdtraj", None)
    with pytest.raises(InputError, match=r"pip install 'recovar\[trajectories\]'"):
        read_trajectory(write("made.dcd", ""), write("made.pdb", PDB))


def test_what_was_written_is_read(tmp_path):
    generator = np.random.default_rng(2)
    structure = gemmi.Structure()
    chain = structure.add_model(gemmi.Model(1)).add_chain(gemmi.Chain("A"))
    elements = ["C", "N", "O", "S", "P", "Mg"]
    for number, element in enumerate(elements):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "LIG", gemmi.SeqId(number, " ")
        atom.name, atom.element = element, gemmi.Element(element)
        atom.pos, atom.b_iso = gemmi.Position(*generator.normal(size=3)), number
        residue.add_atom(atom)
        chain.add_residue(residue)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(tmp_path / "made.mmcif"))
    atoms = read_atoms(tmp_path / "made.mmcif")
    expected = np.random.default_rng(2).normal(size=(6, 3))
    np.testing.assert_allclose(atoms.positions, expected, atol=1e-3)
    assert atoms.elements.tolist() == elements
    np.testing.assert_array_equal(atoms.b_factors, np.arange(6))


def test_centring_and_moving_keep_all_else():
    atoms = Atoms(np.array([[0.0, 0, 0], [2, 4, 6]]), np.array(["C", "N"]), 5.0, np.array([1.0, 2]))
    moved = atoms.select(np.array([1, 0])).at(np.ones((2, 3))).centred()
    assert moved.elements.tolist() == ["N", "C"]
    assert moved.b_factor == 5
    np.testing.assert_array_equal(moved.b_factors, [2, 1])
    np.testing.assert_array_equal(moved.positions, 0)
    np.testing.assert_array_equal(atoms.select(np.array([False, True])).positions, [[2, 4, 6]])


@pytest.fixture
def server(tmp_path):
    """Serve a directory with one entry of a databank."""
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "1ABC.cif.gz").write_bytes(gzip.compress(CIF.encode()))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "bank")) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_entry_is_fetched_once_and_kept(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = find_structure("1abc", tmp_path / "cache" / "new", server)
    assert path == tmp_path / "cache" / "new" / "1ABC.cif.gz"
    assert [p.name for p in path.parent.iterdir()] == ["1ABC.cif.gz"]
    assert len(read_atoms(path)) == 2
    assert find_structure("1ABC", path.parent, "http://127.0.0.1:1") == path


def test_an_entry_that_does_not_exist_leaves_nothing_behind(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"could not fetch .*9XYZ.cif.gz: .*404"):
        find_structure("9xyz", tmp_path / "cache", server)
    assert not list(tmp_path.glob("cache/*"))


def test_without_a_network_it_is_said_where_a_file_would_be_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = rf"no 6VXX.cif, .pdb or .ent .* in {tmp_path} or {tmp_path / 'cache'}"
    with pytest.raises(InputError, match=message):
        find_structure("6VXX", tmp_path / "cache", "http://127.0.0.1:1")


@pytest.mark.parametrize("name", ["6vxx.cif", "6VXX.pdb", "pdb6vxx.ent.gz"])
def test_a_local_file_comes_first(write, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(name, "")
    assert find_structure("6VXX", tmp_path, "http://127.0.0.1:1") == Path(name)
    assert find_structure(tmp_path / name) == tmp_path / name


def test_what_is_neither_a_file_nor_an_identifier_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no file spike\.pdb"):
        find_structure("spike.pdb", tmp_path)


def test_segments_of_arrays_stand_for_chains(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=np.eye(3), element=["C"] * 3, segment=["rna", "rna", "L1"])
    assert read_atoms(tmp_path / "a.npz").chains.tolist() == ["rna", "rna", "L1"]
