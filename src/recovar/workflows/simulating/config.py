"""The options of `recovar simulate`; nothing here needs JAX, so that help and errors are quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from recovar.errors import InputError

POSES_KEYWORDS = ("uniform", "preferred")
CTF_KEYWORDS = ("drawn", "none")
NOISE_KEYWORDS = ("white", "coloured")

_MOLECULE = {"group": "Molecule"}
_MOTION = {"group": "Motion"}
_IMAGES = {"group": "Images"}
_JUNK = {"group": "What else is in the images"}
_ERRORS = {"group": "What the files say wrongly"}
_TILTS = {"group": "Tilt series"}
_FILES = {"group": "Files"}


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """Everything that `recovar simulate` can be told."""

    output: Path
    """Directory for the data set: new or empty."""
    like: Literal["igg-1d", "igg-rl", "ribosembly", "tomotwin-100", "spike-md"] | None = None
    """Take box, pixels, signal-to-noise ratio, numbers of images and of conformations from a set of
    CryoBench, and, without --structure, --volumes or --trajectory, an invented molecule that moves
    in such a way. A look-alike, not the original."""
    scale: float = 1.0
    """Share of the images of --like to make, such as 0.01."""
    seed: int = 0
    """Of all random choices."""
    device: Literal["numpy", "jax"] = "numpy"
    """What sums the waves of atoms: the CPU, or the device that JAX finds, such as a GPU."""

    structure: tuple[str, ...] = field(default=(), metadata=_MOLECULE)
    """Atoms: PDB or mmCIF files, .npz of coordinates, or PDB ids. Several are states of their own,
    each image showing one. Without it a molecule is invented."""
    volumes: tuple[Path, ...] = field(default=(), metadata=_MOLECULE)
    """Maps (.mrc) in place of atoms; each image shows one."""
    trajectory: Path | None = field(default=None, metadata=_MOLECULE)
    """Frames of moving atoms: a PDB or mmCIF file of many models, .npz, or .dcd or .xtc with the
    atoms named by --structure."""
    assembly: str | None = field(default=None, metadata=_MOLECULE)
    """Name of the biological assembly to build, such as 1."""
    hydrogens: bool = field(default=False, metadata=_MOLECULE)
    """Keep hydrogen atoms."""
    b_factor: float = field(default=80.0, metadata=_MOLECULE)
    """Å², of all atoms of --structure or --trajectory alike, on top of their own."""
    own_b_factors: bool = field(default=True, metadata=_MOLECULE)
    """Use the atoms' own B-factors; predicted models hold confidences in their place."""
    solvent: bool = field(default=False, metadata=_MOLECULE)
    """Take off what the water that atoms displace would have scattered."""

    motion: Literal["hinge", "morph", "modes", "composition", "none"] | None = field(
        default=None, metadata=_MOTION
    )
    """How --structure moves: chains about a hinge, towards the atoms of --end, along its softest
    normal modes, or by chains that come and go."""
    moving: tuple[str, ...] = field(default=(), metadata=_MOTION)
    """Chains that turn about the hinge; in names * stands for any text."""
    hinge: tuple[float, ...] = field(default=(), metadata=_MOTION)
    """x,y,z of the hinge in Å; where moving and other atoms touch if not given."""
    axis: tuple[float, ...] = field(default=(), metadata=_MOTION)
    """x,y,z of the direction to turn about; if not given the one that swings the moving atoms in
    the plane of hinge and centres of both parts."""
    angle: float = field(default=20.0, metadata=_MOTION)
    """Largest turn to each side, in degrees."""
    end: str | None = field(default=None, metadata=_MOTION)
    """Atoms at the end of a morph: the same as in --structure, elsewhere."""
    morph: Literal["angular", "linear"] = field(default="angular", metadata=_MOTION)
    """Whether chains turn on their way or atoms move on straight lines."""
    modes: int = field(default=1, metadata=_MOTION)
    """Number of normal modes, 1 or 2."""
    amplitude: float = field(default=3.0, metadata=_MOTION)
    """Root mean square displacement of atoms at the end of a mode, in Å."""
    compositions: str | None = field(default=None, metadata=_MOTION)
    """Chains that are present in each composition: commas between chains, semicolons between
    compositions, as in "A,B,C;A,B;A"; "RNA*" are all chains whose name starts so."""
    density: str = field(default="two-wells", metadata=_MOTION)
    """How the states of a motion are distributed: uniform, gaussian, slope, two-wells, three-wells,
    and for two normal modes also crescent or ring."""
    weights: tuple[float, ...] = field(default=(), metadata=_MOTION)
    """Weights of compositions, structures or volumes; equal if not given."""
    conformations: int | None = field(default=None, metadata=_MOTION)
    """Number of distinct conformations in all, each made once as a volume; 0 gives every image its
    own, from its atoms. 0 if not given, or what --like has."""

    n_images: int | None = field(default=None, metadata=_IMAGES)
    """Images to make, in tilt series particles; 10000 if neither this nor --like is given."""
    box: int | None = field(default=None, metadata=_IMAGES)
    """Pixels along a side; 128 if neither this nor --like is given."""
    pixel_size: float | None = field(default=None, metadata=_IMAGES)
    """Å; without it such that images are as wide as those of --like, or that the molecule is 0.6 of
    the box long."""
    snr: float | None = field(default=None, metadata=_IMAGES)
    """Mean square of the signal over the variance of the noise, all pixels of the box; 0.05 if
    neither this nor --like is given."""
    poses: str = field(default="uniform", metadata={**_IMAGES, "keywords": POSES_KEYWORDS})
    """uniform, preferred, or a file of poses to draw from: a pickle or .npz (rot, trans)."""
    ctf: str = field(default="drawn", metadata={**_IMAGES, "keywords": CTF_KEYWORDS})
    """drawn, none, or a file of CTF parameters to draw from: a pickle or .npz (ctf)."""
    defocus: tuple[float, ...] = field(default=(8000.0, 25000.0), metadata=_IMAGES)
    """Least and largest defocus in Å, where CTFs are drawn."""
    shift: float | None = field(default=None, metadata=_IMAGES)
    """Standard deviation of shifts along x and y in Å; without it two pixels, or those of the file
    of poses."""
    contrast: float | None = field(default=None, metadata=_IMAGES)
    """Standard deviation of the factor that multiplies the signal of an image; 0.15 if not given,
    with --like 0."""
    noise: str | None = field(default=None, metadata={**_IMAGES, "keywords": NOISE_KEYWORDS})
    """white, coloured, or a file: a radial profile of power (.npy, .txt, or noise_psd in .npz);
    coloured if not given, with --like white."""
    noise_scale: float = field(default=0.0, metadata=_IMAGES)
    """Standard deviation of the factor that multiplies the noise of an image."""
    image_b_factor: tuple[float, ...] = field(default=(0.0, 0.0), metadata=_IMAGES)
    """Least and largest B-factor of images in Å²."""
    baseline: float = field(default=0.0, metadata=_IMAGES)
    """Standard deviation of a constant that is added to an image; pixels of noise have 1."""

    empty: float = field(default=0.0, metadata=_JUNK)
    """Share of images of ice alone."""
    other: float = field(default=0.0, metadata=_JUNK)
    """Share of images of another molecule, which is invented."""
    off_centre: float = field(default=0.0, metadata=_JUNK)
    """Share of images whose molecule is far from where the files say."""
    neighbours: float = field(default=0.0, metadata=_JUNK)
    """Share of images that a second molecule reaches into."""

    defocus_error: float = field(default=0.0, metadata=_ERRORS)
    """Standard deviation of the error of the defocus in Å."""
    pose_error: float = field(default=0.0, metadata=_ERRORS)
    """Standard deviation of the error of the orientation in degrees, about each axis."""
    shift_error: float = field(default=0.0, metadata=_ERRORS)
    """Standard deviation of the error of the shift in Å, along x and y."""

    tilts: int = field(default=0, metadata=_TILTS)
    """Images per particle, in a dose-symmetric series; 0 for single images."""
    tilt_step: float = field(default=3.0, metadata=_TILTS)
    """Degrees between tilts."""
    dose: float = field(default=3.0, metadata=_TILTS)
    """Electrons per Å² and tilt."""

    dtype: Literal["float32", "float16"] = field(default="float32", metadata=_FILES)
    """Of the pixels in the stack."""
    premultiplied: bool = field(default=False, metadata=_FILES)
    """Multiply images by their transfer functions, as some programs extract them."""
    true_volumes: int = field(default=41, metadata=_FILES)
    """Volumes to write as truth along motions; distinct conformations, if as few, are all
    written."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read or written."""
        self._refuse_contradictions()
        for option in ("hinge", "axis"):
            _refuse_unless(option, getattr(self, option), len(getattr(self, option)) in (0, 3),
                           "three numbers x,y,z")  # fmt: skip
        for option in ("defocus", "image_b_factor"):
            values = getattr(self, option)
            ordered = len(values) == 2 and values[0] <= values[1]
            _refuse_unless(option, values, ordered, "two numbers, the smaller first")
        for option in ("empty", "other", "off_centre", "neighbours"):
            value = getattr(self, option)
            _refuse_unless(option, value, 0 <= value <= 1, "a share from 0 to 1")
        for option in ("scale", "snr", "pixel_size", "angle", "amplitude", "tilt_step"):
            value = getattr(self, option)
            _refuse_unless(option, value, value is None or value > 0, "a number above 0")
        for option in (
            "shift", "contrast", "noise_scale", "baseline", "dose", "seed", "defocus_error",
            "pose_error", "shift_error",
        ):  # fmt: skip
            value = getattr(self, option)
            _refuse_unless(option, value, value is None or value >= 0, "a number of at least 0")
        for option, least in (
            ("n_images", 1), ("modes", 1), ("conformations", 0), ("tilts", 0), ("true_volumes", 1),
        ):  # fmt: skip
            value = getattr(self, option)
            _refuse_unless(option, value, value is None or value >= least, f"at least {least}")
        _refuse_unless("modes", self.modes, self.modes <= 2, "at most 2")
        even = self.box is None or (self.box >= 16 and self.box % 2 == 0)
        _refuse_unless("box", self.box, even, "an even number of at least 16 pixels")
        junk = self.empty + self.other + self.off_centre
        _refuse_unless("empty, --other and --off-centre", junk, junk <= 1, "shares of at most 1")

    def _refuse_contradictions(self) -> None:
        sources = [
            f"--{name}"
            for name, given in (
                ("volumes", self.volumes),
                ("trajectory", self.trajectory is not None),
                ("motion", self.motion is not None),
            )
            if given
        ]
        if len(sources) > 1:
            raise InputError(
                f"{' and '.join(sources)} both say what images show. Give one of them."
            )
        if self.volumes and self.structure:
            raise InputError("--volumes and --structure both say what images show. Give one.")
        if self.scale != 1 and self.like is None:
            raise InputError("--scale is a share of the images of --like. Give --n-images instead.")
        if self.motion is not None and len(self.structure) != 1:
            raise InputError(
                f"Expected one --structure that makes the motion {self.motion}, got "
                f"{len(self.structure)}."
            )
        wanted = {"hinge": "moving", "morph": "end", "composition": "compositions"}
        for motion, option in wanted.items():
            if (self.motion == motion) != bool(getattr(self, option)):
                raise InputError(
                    f"--motion {motion} and --{option} need each other. Give both, or neither."
                )


def _refuse_unless(option: str, value: object, good: bool, wanted: str) -> None:
    if not good:
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        raise InputError(f"Expected {wanted} for --{option.replace('_', '-')}, got {shown}.")
