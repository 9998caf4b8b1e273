"""Atoms of molecules and how they move: PDB, mmCIF, arrays and trajectories."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.client import HTTPException
from itertools import groupby
from pathlib import Path
from urllib.request import urlopen

import gemmi
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from recovar.core.scattering import POINT, find_element
from recovar.data import select_rows, written_whole
from recovar.data.numpy_files import read_npz
from recovar.errors import InputError

SERVER = "https://files.rcsb.org/download"
"""Where structures are fetched from."""

_PATIENCE = 60.0
"""Seconds that the server may be silent."""
_STRUCTURES = tuple(
    kind + packed for kind in (".cif", ".mmcif", ".pdb", ".ent") for packed in ("", ".gz")
)
_WATERS = {"HOH", "DOD", "WAT", "H2O", "OH2", "SOL", "TIP", "TIP2", "TIP3", "TIP4", "TP3"}
"""Names of water molecules, in the PDB and in simulations."""


@dataclass(frozen=True)
class Atoms:
    """Atoms around the origin of a volume."""

    positions: Float[np.ndarray, "atoms 3"]
    """x y z in Å."""
    elements: Shaped[np.ndarray, " atoms"]
    """Chemical symbols, or `POINT`."""
    b_factor: float = 0.0
    """Å²; damps all atoms alike by exp(−B |k|²/4), on top of their own."""
    b_factors: Float[np.ndarray, " atoms"] | None = None
    """Å²; of every atom alone."""
    occupancy: Float[np.ndarray, " atoms"] | None = None
    """How often an atom is there: the factor of its amplitude."""
    chains: Shaped[np.ndarray, " atoms"] | None = None
    names: Shaped[np.ndarray, " atoms"] | None = None
    """Names within the residue, such as CA."""
    residues: Int[np.ndarray, " atoms"] | None = None
    """Numbers within the chain, as the file has them."""

    def __len__(self) -> int:
        """Count the atoms."""
        return len(self.positions)

    def select(self, rows: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " atoms"]) -> "Atoms":
        """Keep these atoms, in this order."""
        return select_rows(self, np.arange(len(self))[rows])

    def at(self, positions: Float[np.ndarray, "atoms 3"]) -> "Atoms":
        """Give the same atoms at other places."""
        return replace(self, positions=positions)

    def centred(self) -> "Atoms":
        """Move the midpoint of the bounding box to the origin.

        Example:
            >>> atoms = Atoms(np.array([[1.0, 2.0, 3.0], [3.0, 6.0, 3.0]]), np.array(["C", "O"]))
            >>> atoms.centred().positions.tolist()
            [[-1.0, -2.0, 0.0], [1.0, 2.0, 0.0]]
        """
        low, high = self.positions.min(0), self.positions.max(0)
        return self.at(self.positions - 0.5 * (low + high))


@dataclass(frozen=True)
class Trajectory:
    """The same atoms at many times."""

    atoms: Atoms
    """As in the first frame."""
    frames: Float[np.ndarray, "frames atoms 3"]
    """x y z in Å."""

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.frames)


def read_atoms(
    path: Path,
    *,
    assembly: str | None = None,
    hydrogens: bool = False,
    waters: bool = False,
    model: int = 0,
) -> Atoms:
    """Read the atoms of a structure from PDB, mmCIF (both also as .gz), or .npz.

    Of alternative conformations of a residue the one of the highest summed occupancy is kept, of
    equals the first; its atoms then also stand for those of the same name that are left out. An
    element that a PDB file lacks follows from the name of the atom and its column. Occupancies
    are weights. The B-factors are the isotropic ones: predicted models keep a confidence in that
    column, and `dataclasses.replace(atoms, b_factors=None)` takes it away. Non-crystallographic
    symmetry is not applied.

    Args:
        path: An .npz holds `xyz` (atoms 3 or frames atoms 3, Å) and `element`, and where it likes
            `atom`, `resname`, `resid` and `chain`, or `segment` for parts that move together.
        assembly: Name of the biological assembly to build, such as "1"; its chains are called
            A1, A2 … after the chain they copy. None takes the atoms as they stand in the file.
        hydrogens: Whether to keep hydrogen and deuterium.
        waters: Whether to keep water molecules.
        model: Which model, or frame, from 0.

    Raises:
        InputError: If the file is not a structure, lacks what is asked for, or has an atom
            without an element, a place, or a possible occupancy or B-factor.
    """
    if path.suffix == ".npz":
        if assembly is not None:
            raise InputError(f"{path}: assembly {assembly!r} was asked for, but arrays have none.")
        trajectory = _read_arrays(path, hydrogens, waters)
        _check_model(path, model, len(trajectory))
        return trajectory.atoms.at(trajectory.frames[model])
    structure = _read_structure(path)
    _check_model(path, model, len(structure))
    chosen = structure[model]
    if assembly is not None:
        chosen = _assemble(path, structure, chosen, assembly)
    return _collect(path, chosen, hydrogens, waters)


def read_trajectory(
    path: Path, topology: Path | None = None, *, hydrogens: bool = False, waters: bool = False
) -> Trajectory:
    """Read the same atoms in many frames.

    Args:
        path: PDB or mmCIF with many models, .npz as `read_atoms` reads it, or what mdtraj reads
            with a topology, such as .dcd and .xtc. Molecules that a periodic box cuts stay cut.
        topology: A file that mdtraj takes names and elements from; only beside a file that has
            none itself.
        hydrogens: Whether to keep hydrogen and deuterium.
        waters: Whether to keep water molecules.

    Raises:
        InputError: If the frames have different atoms, a file cannot be read, or mdtraj is needed
            and is not installed.
    """
    stated = path.suffix == ".npz" or _is_structure(path)
    if stated and topology is not None:
        raise InputError(f"{path} names its atoms itself. Leave out the topology {topology}.")
    if path.suffix == ".npz":
        return _read_arrays(path, hydrogens, waters)
    if not stated:
        return _read_with_mdtraj(path, topology, hydrogens, waters)
    models = [_collect(path, model, hydrogens, waters) for model in _read_structure(path)]
    first = _identities(models[0])
    for number, other in enumerate(models, 1):
        if _identities(other) != first:
            raise InputError(
                f"{path}: expected the {len(models[0])} atoms of the first model in all "
                f"{len(models)}, but model {number} has others ({len(other)}). Remove it, or the "
                "atoms that not all have."
            )
    return Trajectory(models[0], np.stack([model.positions for model in models]))


def find_structure(molecule: str | Path, cache: Path | None = None, server: str = SERVER) -> Path:
    """Find the file of a structure, and fetch it where there is none.

    Args:
        molecule: Path of a file, or an identifier of the Protein Data Bank, such as 6VXX. For
            that, the working directory and then `cache` are searched for a file of this name
            that ends in .cif, .mmcif, .pdb or .ent, or in .gz after these.
        cache: Where fetched files are kept; it is made if it is missing. None stands for
            `.cache/recovar/structures` in the home directory.
        server: Address of a directory with files such as 6VXX.cif.gz.

    Raises:
        InputError: If there is no such file and it cannot be fetched.
    """
    if Path(molecule).is_file():
        return Path(molecule)
    name = str(molecule)
    if not re.fullmatch("[0-9][A-Za-z0-9]{3}|(pdb|PDB)_[A-Za-z0-9]{8}", name):
        raise InputError(
            f"Expected the path of a structure or an identifier of the Protein Data Bank such as "
            f"6VXX, but there is no file {name}."
        )
    cache = cache or Path.home() / ".cache" / "recovar" / "structures"
    for directory in (Path(), cache):
        for stem in (name, name.upper(), name.lower(), f"pdb{name.lower()}"):
            for suffix in _STRUCTURES:
                if (directory / (stem + suffix)).is_file():
                    return directory / (stem + suffix)
    return _fetch(f"{server}/{name.upper()}.cif.gz", cache / f"{name.upper()}.cif.gz")


def _fetch(address: str, path: Path) -> Path:
    try:
        with urlopen(address, timeout=_PATIENCE) as answer:
            content = answer.read()
    except (OSError, HTTPException) as error:
        stem = path.name.removesuffix(".cif.gz")
        raise InputError(
            f"Found no {stem}.cif, .pdb or .ent (nor .gz of these) in {Path.cwd()} or "
            f"{path.parent}, and could not fetch {address}: {error}. Correct the identifier, or "
            f"put the file into one of these directories, or give its path."
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
    return path


def _is_structure(path: Path) -> bool:
    return path.name.lower().endswith(_STRUCTURES)


def _read_structure(path: Path) -> gemmi.Structure:
    if not path.is_file():
        raise InputError(f"Expected a structure at {path}, but there is no such file.")
    if not _is_structure(path):
        raise InputError(
            f"{path}: expected a name that ends in {', '.join(_STRUCTURES)} or .npz. Rename or "
            "convert the file."
        )
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise InputError(f"{path} cannot be read as a structure: {error}.") from error
    if not any(len(chain) for model in structure for chain in model):
        raise InputError(f"{path}: expected a structure, found no atoms.")
    return structure


def _check_model(path: Path, model: int, count: int) -> None:
    if not 0 <= model < count:
        raise InputError(
            f"{path}: expected a model from 0 to {count - 1}, for there are {count}, got {model}."
        )


def _assemble(path: Path, structure: gemmi.Structure, model: gemmi.Model, name: str) -> gemmi.Model:
    for assembly in structure.assemblies:
        if assembly.name == name:
            return gemmi.make_assembly(assembly, model, gemmi.HowToNameCopiedChain.AddNumber)
    known = ", ".join(assembly.name for assembly in structure.assemblies) or "none"
    raise InputError(f"{path}: expected one of its assemblies ({known}), got {name!r}.")


def _collect(path: Path, model: gemmi.Model, hydrogens: bool, waters: bool) -> Atoms:
    """Take the atoms of a model in the order of the file."""
    chosen = [
        (chain.name, residue, atom, occupancy)
        for chain in model
        for _, group in groupby(chain, lambda residue: str(residue.seqid))
        for residue, atom, occupancy in _one_conformation(list(group))
        if (hydrogens or not atom.is_hydrogen()) and (waters or residue.name not in _WATERS)
    ]
    if not chosen:
        raise InputError(f"{path}: expected atoms other than hydrogens and waters, found none.")
    chains, residues, atoms, occupancies = zip(*chosen, strict=True)
    found = Atoms(
        positions=np.array([atom.pos.tolist() for atom in atoms]),
        elements=np.array([atom.element.name for atom in atoms]),
        b_factors=np.array([atom.b_iso for atom in atoms]),
        occupancy=np.array(occupancies),
        chains=np.array(chains),
        names=np.array([atom.name for atom in atoms]),
        residues=np.array([residue.seqid.num for residue in residues]),
    )
    _check(path, found, np.array([atom.serial for atom in atoms]))
    return found


def _one_conformation(
    group: list[gemmi.Residue],
) -> Iterator[tuple[gemmi.Residue, gemmi.Atom, float]]:
    """Choose among residues that share a number, with the occupancy that each atom stands for."""
    everything = [(residue, atom) for residue in group for atom in residue]
    of_conformation: dict[str, float] = defaultdict(float)
    of_name: dict[str, float] = defaultdict(float)
    for _, atom in everything:
        if atom.has_altloc():
            of_conformation[atom.altloc] += atom.occ
            of_name[atom.name] += atom.occ
    kept = max(of_conformation, key=lambda letter: of_conformation[letter], default="")
    for residue, atom in everything:
        if not atom.has_altloc():
            yield residue, atom, atom.occ
        elif atom.altloc == kept:
            yield residue, atom, max(atom.occ, min(1.0, of_name[atom.name]))


def _read_arrays(path: Path, hydrogens: bool, waters: bool) -> Trajectory:
    arrays = read_npz(path)
    for name in ("xyz", "element"):
        if name not in arrays:
            raise InputError(
                f"{path}: expected the arrays xyz and element, found {', '.join(arrays) or 'none'}."
            )
    places, elements = arrays["xyz"], arrays["element"].astype(str)
    frames = places[None] if places.ndim == 2 else places
    if frames.ndim != 3 or frames.shape[1:] != (len(elements), 3) or frames.dtype.kind != "f":
        raise InputError(
            f"{path}: expected xyz of shape (atoms, 3) or (frames, atoms, 3), in Å, for the "
            f"{elements.size} atoms of element, found {places.dtype} of shape {places.shape}."
        )
    for name in ("element", "atom", "resname", "resid", "chain", "segment"):
        if name in arrays and arrays[name].shape != frames.shape[1:2]:
            raise InputError(
                f"{path}: expected {name} of shape {frames.shape[1:2]}, one for each atom of xyz, "
                f"found {arrays[name].shape}."
            )
    if not len(frames):
        raise InputError(f"{path}: expected frames, found none.")
    atoms = Atoms(
        positions=frames[0],
        elements=elements,
        chains=arrays.get("chain", arrays.get("segment")),
        names=arrays.get("atom"),
        residues=arrays.get("resid"),
    )
    rows = _wanted(elements, arrays.get("resname"), hydrogens, waters)
    return _checked(path, Trajectory(atoms.select(rows), frames[:, rows]), rows + 1)


def _read_with_mdtraj(
    path: Path, topology: Path | None, hydrogens: bool, waters: bool
) -> Trajectory:
    try:
        import mdtraj  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"Reading {path} needs mdtraj, which is not installed. Install it with "
            "`pip install 'recovar[trajectories]'`, or convert the frames to .npz."
        ) from error
    if topology is None:
        raise InputError(
            f"{path} holds places without atoms. Give a topology too: a file with the names and "
            "elements of the same atoms, such as a .pdb or .psf."
        )
    for file in (path, topology):
        if not file.is_file():
            raise InputError(f"Expected a file at {file}, found none.")
    try:
        known = mdtraj.load_topology(str(topology))
        listed = list(known.atoms)  # type: ignore[union-attr]
        elements = np.array([getattr(atom.element, "symbol", "X") for atom in listed])
        residues = np.array([atom.residue.name for atom in listed])
        rows = _wanted(elements, residues, hydrogens, waters)
        frames = 10 * mdtraj.load(str(path), top=known, atom_indices=rows).xyz
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(
            f"mdtraj cannot read {path} with the topology {topology}: {error}."
        ) from error
    atoms = Atoms(
        positions=frames[0],
        elements=elements[rows],
        chains=np.array([listed[row].residue.chain.chain_id or "" for row in rows]),
        names=np.array([listed[row].name for row in rows]),
        residues=np.array([listed[row].residue.resSeq for row in rows]),
    )
    return _checked(path, Trajectory(atoms, frames), rows + 1)


def _wanted(
    elements: Shaped[np.ndarray, " atoms"],
    residue_names: Shaped[np.ndarray, " atoms"] | None,
    hydrogens: bool,
    waters: bool,
) -> Int[np.ndarray, " chosen"]:
    keep = np.ones(len(elements), bool)
    if not hydrogens:
        keep &= ~np.isin(elements, ["H", "D"])
    if not waters and residue_names is not None:
        keep &= ~np.isin(residue_names, list(_WATERS))
    return np.flatnonzero(keep)


def _identities(atoms: Atoms) -> list[tuple[str | int, ...]]:
    columns = (atoms.chains, atoms.residues, atoms.names, atoms.elements)
    return list(zip(*(column.tolist() for column in columns if column is not None), strict=True))


def _check(path: Path, atoms: Atoms, numbers: Int[np.ndarray, " atoms"]) -> None:
    """Refuse atoms that could not scatter; `numbers` are those they have in the file."""
    if not len(atoms):
        raise InputError(f"{path}: expected atoms other than hydrogens and waters, found none.")
    unknown = [s for s in np.unique(atoms.elements) if s != POINT and not find_element(str(s))]
    checks = [
        ("a chemical element from H to Cf", atoms.elements, ~np.isin(atoms.elements, unknown)),
        ("finite coordinates", atoms.positions, np.isfinite(atoms.positions).all(1)),
    ]
    if atoms.b_factors is not None:
        checks.append(("a B-factor of 0 or more", atoms.b_factors, atoms.b_factors >= 0))
    if atoms.occupancy is not None:
        share = (atoms.occupancy >= 0) & (atoms.occupancy <= 1)
        checks.append(("an occupancy from 0 to 1", atoms.occupancy, share))
    for wanted, values, good in checks:
        if not good.all():
            row = int(np.argmin(good))
            name = "" if atoms.names is None else f" ({atoms.names[row]})"
            raise InputError(
                f"{path}, atom {numbers[row]}{name}: expected {wanted}, found "
                f"{values[row].tolist()!r}. Correct or remove it."
            )
    if atoms.occupancy is not None and not atoms.occupancy.any():
        raise InputError(
            f"{path}: expected occupancies above 0, found 0 for every atom. Write 1 into that "
            "column."
        )


def _checked(path: Path, trajectory: Trajectory, numbers: Int[np.ndarray, " atoms"]) -> Trajectory:
    _check(path, trajectory.atoms, numbers)
    good = [bool(np.isfinite(frame).all()) for frame in trajectory.frames]
    if not all(good):
        raise InputError(
            f"{path}, frame {good.index(False)}: expected finite coordinates. Remove the frame."
        )
    return trajectory
