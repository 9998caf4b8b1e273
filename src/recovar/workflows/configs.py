"""The options of every command; nothing here needs JAX, so that help and errors are quick."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recovar.compute.memory import parse_bytes
from recovar.errors import InputError

MASK_KEYWORDS = ("from_halfmaps", "sphere", "none")
_MOST_COMPONENTS = 200
_LEAST_COMPONENTS = 10
_COMPLEMENT_COMPONENTS = 6
"""They need not tell what moves outside the focus, only keep it out of the coordinates."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "recommended": {
        "subspace": "em",
        "columns": "weighted",
        "covariance": "likelihood",
        "noise_method": "residual",
        "noise_groups": "automatic",
        "noise_scale": None,
        "contrast_method": "marginal",
        "weigh_junk": True,
    },
    "published": {
        "subspace": "columns",
        "columns": "published",
        "covariance": "least-squares",
        "noise_method": "published",
        "noise_groups": "all",
        "noise_scale": False,
        "contrast_method": "published",
        "weigh_junk": True,
    },
}
"""What options are that were not given."""

_INPUT = {"group": "Images"}
_MASK = {"group": "Mask"}
_MODEL = {"group": "Model"}


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Everything that `recovar pipeline` can be told."""

    particles: tuple[Path, ...] = field(metadata={"positional": True})
    """Particle images: .star, .cs or .csg files, stacks (.mrcs), or a .txt that lists stacks.
    Images of several files are analysed together."""
    output: Path
    """Directory of the run: new, empty, or a run to go on with."""

    zdim: tuple[int, ...] = (4, 10, 20)
    """Numbers of latent coordinates; one embedding is written for each. At least ten components are
    fitted with em, as weak ones need room."""
    preset: Literal["recommended", "published"] = "recommended"
    """What options are that are not given: those that measure best (recommended), or those of the
    published program (published), which are --subspace columns --columns published --covariance
    least-squares --noise-method published --noise-groups all --no-noise-scale --contrast-method
    published, and --state-method published for the commands that go on from the run."""
    correct_contrast: bool = False
    """Estimate the contrast of every image, or of every particle of a tilt series."""
    subspace: Literal["em", "columns"] | None = None
    """How principal components are found: by maximum likelihood (em, the default), or from sampled
    columns of the covariance (columns)."""
    weigh_junk: bool | None = None
    """Let images count only as much as they probably show the molecule where the files say, while
    components are fitted with em; the default, except within a focus mask."""
    only_mean: bool = False
    """Stop after the mean, its mask and the noise."""
    reproducibility: bool = True
    """Fit both half sets apart as well, at low resolution, to tell which components are found in
    both."""
    seed: int = 0
    """Of all random choices."""
    memory: str | None = None
    """Ceiling on the memory used, such as 16GB; 80 % of what is free if not given. Lower ones take
    more passes over the images."""

    poses: Path | None = field(default=None, metadata=_INPUT)
    """Pickle or .npz of poses, in place of those in the particles file."""
    ctf: Path | None = field(default=None, metadata=_INPUT)
    """Pickle or .npz of CTF parameters, in place of those in the particles file."""
    datadir: Path | None = field(default=None, metadata=_INPUT)
    """Directory that the names of image files are relative to."""
    strip_prefix: str | None = field(default=None, metadata=_INPUT)
    """Leading part to take off the names of image files."""
    passthrough: tuple[Path, ...] = field(default=(), metadata=_INPUT)
    """Further cryoSPARC tables of the same particles."""
    pixel_size: float | None = field(default=None, metadata=_INPUT)
    """Å per pixel, in place of what the files say."""
    ind: Path | None = field(default=None, metadata=_INPUT)
    """Images to use: indices from 0, or a mask (.pkl, .npy, .txt)."""
    n_images: int | None = field(default=None, metadata=_INPUT)
    """Use this many images, the first ones of each half set."""
    halfsets: Path | None = field(default=None, metadata=_INPUT)
    """Pickle of two lists of image indices from 0, in place of those in the particles file."""
    downsample: int | None = field(default=None, metadata=_INPUT)
    """Shrink the images to this many pixels along a side, by cropping their transforms."""
    uninvert_data: Literal["automatic", "true", "false"] = field(
        default="automatic", metadata=_INPUT
    )
    """Whether to flip the sign of the images, as where particles are bright; automatic looks at
    the mean."""
    trust_input: bool = field(default=False, metadata=_INPUT)
    """Go on where a few images contradict poses or CTFs beyond doubt."""

    mask: str = field(
        default="from_halfmaps", metadata={"group": "Mask", "keywords": MASK_KEYWORDS}
    )
    """Solvent mask: a file (.mrc), or from_halfmaps, sphere or none."""
    mask_option: Literal["from_halfmaps", "sphere", "none"] | None = field(
        default=None, metadata=_MASK
    )
    """The same, keywords only."""
    mask_dilate_iter: int = field(
        default=0, metadata={"group": "Mask", "aliases": ("--dilate-mask-iter",)}
    )
    """Grow the mask by this many voxels."""
    focus_mask: tuple[Path, ...] = field(default=(), metadata=_MASK)
    """Masks (.mrc) of parts of the molecule, apart from each other. Coordinates tell what happens
    within the first one; there are further embeddings for the others."""
    use_complement_mask: bool | None = field(default=None, metadata=_MASK)
    """Fit what happens outside the focus masks as well, so that it stays out of the coordinates;
    the default with em, and not possible with columns."""

    noise_model: Literal["radial", "white"] = field(default="radial", metadata=_MODEL)
    """How noise varies with frequency."""
    noise_groups: Literal["automatic", "optics", "all"] | None = field(
        default=None, metadata=_MODEL
    )
    """Which images share a spectrum of the noise: those of an optics group (optics), or all; as
    optics where groups have 500 images or more (automatic, the default)."""
    noise_scale: bool | None = field(default=None, metadata=_MODEL)
    """Estimate how strong the noise of every image is; by default where images differ by more than
    chance."""
    ignore_zero_frequency: bool = field(default=False, metadata=_MODEL)
    """Learn nothing from the mean of an image's pixels, which depends on how its background was
    subtracted."""
    noise_method: Literal["residual", "published"] | None = field(default=None, metadata=_MODEL)
    """Where noise is measured: on residuals outside the molecule (residual, the default), or on
    images, with the published bounds (published)."""
    columns: Literal["weighted", "published"] | None = field(default=None, metadata=_MODEL)
    """What becomes of columns of the covariance: little shrunk, and weighted by where the molecule
    varies (weighted, the default); or shrunk each for itself by the published prior (published)."""
    covariance: Literal["likelihood", "least-squares"] | None = field(default=None, metadata=_MODEL)
    """How variances along the columns' components are estimated: by maximum likelihood (likelihood,
    the default), or by matching second moments (least-squares), as published."""
    contrast_method: Literal["marginal", "published"] | None = field(default=None, metadata=_MODEL)
    """How contrast is estimated: coordinates integrated out, with a prior whose width is learned
    (marginal, the default); or together with the coordinates, on a grid up to 2, after the mean was
    taken out of the components that columns gave (published)."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read or written."""
        if isinstance(self.particles, str | Path):
            object.__setattr__(self, "particles", (Path(self.particles),))
        self._fill_in()
        object.__setattr__(self, "zdim", tuple(sorted(set(self.zdim))))
        if not self.zdim or self.zdim[0] < 1 or self.zdim[-1] > _MOST_COMPONENTS:
            raise InputError(
                f"Expected numbers of coordinates from 1 to {_MOST_COMPONENTS} for --zdim, such "
                f"as 4,10,20, got {','.join(map(str, self.zdim)) or 'none'}."
            )
        _refuse_below("--n-images", self.n_images, 2)
        _refuse_below("--mask-dilate-iter", self.mask_dilate_iter, 0)
        _refuse_below("--seed", self.seed, 0)
        if self.downsample is not None and (self.downsample < 8 or self.downsample % 2):
            raise InputError(
                f"Expected an even number of at least 8 pixels for --downsample, got "
                f"{self.downsample}."
            )
        if self.pixel_size is not None and not self.pixel_size > 0:
            raise InputError(f"Expected --pixel-size above 0 Å, got {self.pixel_size:g}.")
        if self.mask_option not in (None, self.mask) and self.mask != "from_halfmaps":
            raise InputError(
                f"--mask {self.mask} and --mask-option {self.mask_option} contradict each other. "
                "Give one of them."
            )
        self._settle_focus()
        if self.memory is not None:
            parse_bytes(self.memory)

    def _settle_focus(self) -> None:
        if not self.focus_mask:
            if self.use_complement_mask is not None:
                raise InputError(
                    "--use-complement-mask is for --focus-mask. Give both, or neither."
                )
        elif self.subspace == "em":
            if self.use_complement_mask is None:
                object.__setattr__(self, "use_complement_mask", True)
        elif self.use_complement_mask or len(self.focus_mask) > 1:
            option = "--use-complement-mask" if self.use_complement_mask else "several focus masks"
            raise InputError(
                f"Expected one --focus-mask alone with --subspace {self.subspace}, got {option}. "
                "Only --subspace em fits several parts of a molecule."
            )

    @property
    def source(self) -> str:
        """The files of particles, for texts."""
        return ", ".join(str(path) for path in self.particles)

    def _fill_in(self) -> None:
        """Take from the preset what was not given and matters; refuse what does not."""
        preset = PRESETS[self.preset]
        object.__setattr__(self, "subspace", self.subspace or preset["subspace"])
        needed = {
            "columns": (self.subspace == "columns", "--subspace columns"),
            "covariance": (self.subspace == "columns", "--subspace columns"),
            "contrast_method": (self.correct_contrast, "--correct-contrast"),
            "weigh_junk": (
                self.subspace == "em" and not self.focus_mask,
                "--subspace em without --focus-mask",
            ),
        }
        for name, usual in preset.items():
            matters, condition = needed.get(name, (True, ""))
            if getattr(self, name) is None and matters:
                object.__setattr__(self, name, usual)
            elif getattr(self, name) is not None and not matters:
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option} is for {condition}. Give both, or neither.")

    @property
    def preset_options(self) -> Mapping[str, Any]:
        """Options that a preset other than the default has set, by their names."""
        usual, own = PRESETS["recommended"], PRESETS[self.preset]
        return {
            f"--{name.replace('_', '-')}": value
            for name, value in own.items()
            if value != usual[name] and getattr(self, name) == value
        }

    @property
    def fitted_components(self) -> int:
        """Components to fit: some more than asked for if these are few, as weak ones need room."""
        return max(*self.zdim, _LEAST_COMPONENTS)

    @property
    def fitted_by_region(self) -> tuple[int, ...]:
        """Components to fit in each focus, or in all of the molecule, and then outside of them."""
        focus = (self.fitted_components,) * max(1, len(self.focus_mask))
        return (*focus, _COMPLEMENT_COMPONENTS) if self.use_complement_mask else focus

    @property
    def solvent(self) -> str:
        """Keyword or file of the solvent mask, whichever option gave it."""
        return self.mask_option or self.mask


def _refuse_below(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise InputError(f"Expected at least {least} for {option}, got {value}.")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Everything that `recovar demo` can be told."""

    output: Path = Path("recovar-demo")
    """Directory for the data set and the run."""
    n_images: int = 4000
    """Images to simulate."""
    box: int = 64
    """Pixels along a side of the images, which are 288 Å wide."""
    seed: int = 0
    """Of the molecule, of its images and of all random choices."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is written."""
        _refuse_below("--n-images", self.n_images, 100)
        _refuse_below("--seed", self.seed, 0)
        if self.box < 24 or self.box % 2:
            raise InputError(
                f"Expected an even number of at least 24 pixels for --box, got {self.box}."
            )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Everything that `recovar score` can be told."""

    truth: Path = field(metadata={"positional": True})
    """Directory of a known truth, or data set with one in truth/, as recovar simulate writes it."""
    result: Path = field(metadata={"positional": True})
    """Run of recovar, folder of plain files (mean.mrc, pc_0000.mrc, embedding.npy …), or file of an
    embedding (.npy, .npz, .pkl, .txt)."""
    output: Path | None = None
    """Directory for scores.json and scores.png; score/ in the result if not given."""
    zdim: int | None = None
    """Embedding of a run to judge, by its number of coordinates; the largest one if not given."""
    ind: Path | None = None
    """Images that plain files are of, where these are not all: indices from 0, or a mask (.pkl,
    .npy, .txt)."""
    seed: int = 0
    """Of clusters, and of the choice of images where there are very many."""

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        _refuse_below("--seed", self.seed, 0)
        _refuse_below("--zdim", self.zdim, 1)


_FILES = {"group": "Files"}
_PIXELS = {"group": "Pixels"}


@dataclass(frozen=True, kw_only=True)
class DownsampleConfig:
    """Everything that `recovar downsample` can be told."""

    particles: Path = field(metadata={"positional": True})
    """Images: a .star, .cs or .csg file, a stack (.mrcs, .mrc), or a .txt that lists stacks; or a
    volume (.mrc) with --is-vol."""
    box: int = field(metadata={"aliases": ("-D",)})
    """Pixels along a side that are wanted, an even number."""
    output: Path
    """Stack to write (.mrcs), or volume (.mrc). A .star or .cs file beside it tells the same of its
    images as the input did; its name may be given as well."""
    is_vol: bool = False
    """The input is a volume."""
    chunk: int | None = None
    """Write stacks of this many images, NAME.0.mrcs, NAME.1.mrcs …, and NAME.txt, which lists
    them."""
    ind: Path | None = None
    """Images to write: indices from 0, or a mask (.pkl, .npy, .txt)."""
    max_threads: int | None = None
    """Threads that read and compute; one per core if not given."""

    datadir: Path | None = field(default=None, metadata=_FILES)
    """Directory that the names of image files are relative to."""
    strip_prefix: str | None = field(default=None, metadata=_FILES)
    """Leading part to take off the names of image files."""
    passthrough: tuple[Path, ...] = field(default=(), metadata=_FILES)
    """Further cryoSPARC tables of the same particles."""
    relion31: bool = field(default=False, metadata=_FILES)
    """Write the .star file as RELION has since 3.1, with a table of optics, where the input is
    older."""

    pixel_size: float | None = field(default=None, metadata={**_PIXELS, "aliases": ("--Apix",)})
    """Å per pixel of the input, in place of what the files say."""
    dtype: Literal["float32", "float16"] = field(default="float32", metadata=_PIXELS)
    """Of the pixels that are written."""
    crop: int | None = field(default=None, metadata=_PIXELS)
    """Cut out the centred square, or cube, of this many pixels first."""
    invert: bool = field(default=False, metadata=_PIXELS)
    """Make dark what is bright."""
    normalize: bool = field(default=False, metadata=_PIXELS)
    """Give the background of every image, outside a circle of 3/4 of the box, mean 0 and standard
    deviation 1."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read or written."""
        for option, value in (("-D", self.box), ("--crop", self.crop)):
            if value is not None and (value < 8 or value % 2):
                raise InputError(
                    f"Expected an even number of at least 8 pixels for {option}, got {value}."
                )
        if self.crop is not None and self.crop < self.box:
            raise InputError(
                f"--crop {self.crop} leaves fewer pixels than -D {self.box} wants. Images are only "
                "made smaller: give a smaller -D."
            )
        _refuse_below("--chunk", self.chunk, 1)
        _refuse_below("--max-threads", self.max_threads, 1)
        if self.pixel_size is not None and not self.pixel_size > 0:
            raise InputError(f"Expected --pixel-size above 0 Å, got {self.pixel_size:g}.")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        table = ".cs" if self.particles.suffix == ".csg" else self.particles.suffix
        if self.is_vol:
            allowed: list[str] = [".mrc"]
            images_only = {
                "--chunk": self.chunk, "--ind": self.ind, "--datadir": self.datadir,
                "--strip-prefix": self.strip_prefix, "--passthrough": self.passthrough,
                "--relion31": self.relion31, "--normalize": self.normalize,
                "--max-threads": self.max_threads, "--dtype float16": self.dtype == "float16",
            }  # fmt: skip
            given = [option for option, value in images_only.items() if value]
            if given:
                raise InputError(f"{given[0]} is for images, not for a volume. Leave it out.")
        else:
            allowed = [".mrcs", *({table} & {".star", ".cs"}), *([".txt"] if self.chunk else [])]
        if self.relion31 and table != ".star":
            raise InputError(
                f"--relion31 is for a .star file, not for {self.particles}. Leave it out."
            )
        if self.output.suffix not in allowed:
            raise InputError(
                f"Expected a name that ends in {' or '.join(allowed)} for -o, got {self.output}."
            )
