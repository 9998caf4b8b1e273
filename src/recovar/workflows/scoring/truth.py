"""What a truth directory tells of a data set: its images, its molecules and its noise."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.spatial import KDTree

from recovar.core import fourier
from recovar.core.grid import Grid
from recovar.data.legacy import read_ctf_pickle, read_poses_pickle
from recovar.data.mrc import read_volume
from recovar.data.plain_arrays import read_array
from recovar.errors import InputError
from recovar.records import load_arrays

_NEAR_TARGET = 50
"""Images nearest to a target on a continuous motion that stand for it, or 2 % if these are more."""


@dataclass(frozen=True)
class Truth:
    """What is known of the images and molecules of a data set."""

    place: Path
    grid: Grid
    latent: Float[np.ndarray, "images coordinates"]
    labels: Int[np.ndarray, " images"] | None
    """Discrete states; of junk −1."""
    good: Bool[np.ndarray, " images"]
    """Images that show the molecule where the files say; the others are junk."""
    contrast: Float[np.ndarray, " images"] | None
    rotations: Float[np.ndarray, "images 3 3"] | None
    defocus: Float[np.ndarray, " images"] | None
    """Å."""
    particles: Int[np.ndarray, " images"] | None
    """Which particle an image shows, in tilt series."""
    noise: Float[np.ndarray, " shells"] | None
    """Variance of a pixel of white noise with the same power, shell by shell."""
    volumes: Float[np.ndarray, "states z y x"]
    volume_latent: Float[np.ndarray, "states coordinates"]
    weights: Float[np.ndarray, " states"]
    """Shares of molecules that look like each volume; their sum is 1."""
    mean: Float[np.ndarray, "z y x"]
    mask: Float[np.ndarray, "z y x"] | None
    targets: Float[np.ndarray, "targets z y x"]
    target_latent: Float[np.ndarray, "targets coordinates"]
    scale: float
    """Factor from these volumes to those that the images show."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.latent)

    @property
    def is_continuous(self) -> bool:
        """Whether molecules differ by more than their labels."""
        count = 1 if self.labels is None else len(np.unique(self.labels))
        return len(np.unique(self.latent[self.good], axis=0)) > count

    def nearest_volumes(self, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
        """Give the true volume whose state is nearest to that of each image."""
        spread = self.volume_latent.std(0)
        scale = 1 / np.where(spread > 0, spread, 1)
        return np.asarray(KDTree(self.volume_latent * scale).query(self.latent[rows] * scale)[1])

    def near(
        self, target: Float[np.ndarray, " coordinates"], rows: Int[np.ndarray, " k"]
    ) -> Int[np.ndarray, " chosen"]:
        """Choose, among images, the places of those that show about a given state.

        All that show just that one, if there are any; else the nearest 2 %, at least 50.
        """
        distances = np.linalg.norm(self.latent[rows] - target, axis=1)
        same = np.flatnonzero(distances == 0)
        if self.labels is not None and same.size:
            return same
        return np.argsort(distances, kind="stable")[: max(_NEAR_TARGET, len(rows) // 50)]

    def in_box(self, size: int) -> "Truth":
        """Crop the spectra of everything, as if images had been shrunk to `size` pixels.

        Pixels keep their scale, as in `recovar pipeline --downsample`.
        """
        if size == self.grid.size:
            return self
        ratio = size / self.grid.size
        mask = None if self.mask is None else np.clip(_shrunk(self.mask[None], size, 3)[0], 0, 1)
        return replace(
            self,
            grid=self.grid.cropped(size),
            noise=None if self.noise is None else self.noise[: size // 2] * ratio**2,
            volumes=_shrunk(self.volumes, size, 2),
            mean=_shrunk(self.mean[None], size, 2)[0],
            mask=mask,
            targets=_shrunk(self.targets, size, 2),
        )


def _shrunk(
    volumes: Float[np.ndarray, "states z y x"], size: int, power: int
) -> Float[np.ndarray, "states z2 y2 x2"]:
    """Crop spectra; with `power` 3 voxels keep their values, with 2 their projections do."""
    factor = (size / volumes.shape[-1]) ** power
    small = np.empty((len(volumes), size, size, size), np.float32)
    for place, volume in zip(small, volumes, strict=True):
        place[:] = factor * fourier.to_volume(
            fourier.crop_spectrum(fourier.to_spectrum(volume), size)
        )
    return small


def read_truth(path: Path) -> Truth:
    """Read a truth directory, or that of a data set that has one.

    Poses and defocus that it does not hold are taken from `poses.pkl` and `ctf.pkl` beside it.

    Raises:
        InputError: If something that every truth has is missing or contradicts the rest.
    """
    place = path / "truth" if (path / "truth").is_dir() else path
    for name in ("per_image.npz", "grid.npz", "mean.mrc"):
        if not (place / name).is_file():
            raise InputError(
                f"Expected a truth directory at {path}, with per_image.npz, grid.npz, mean.mrc and "
                f"volumes, or a data set with one in truth/; there is no {place / name}."
            )
    each, states = load_arrays(place / "per_image.npz"), load_arrays(place / "grid.npz")
    latent = _columns(each["latent"])
    mean = read_volume(place / "mean.mrc")
    meta = _read_meta(place)
    voxel_size = mean.voxel_size or meta.get("apix") or meta.get("pixel_size")
    if not voxel_size:
        raise InputError(f"{place / 'mean.mrc'}: expected a voxel size in its header, found none.")
    volumes = _read_volumes(place, "vol_*.mrc", mean.values.shape)
    targets = _read_volumes(place, "target_*.mrc", mean.values.shape)
    target_latent = np.zeros((0, latent.shape[1]))
    if len(targets):
        target_latent = _columns(load_arrays(place / "targets.npz")["latent"])
    _refuse_count(place / "vol_*.mrc", len(volumes), len(states["latent"]))
    _refuse_count(place / "target_*.mrc", len(targets), len(target_latent))
    good = each["kind"] == 0 if "kind" in each else np.ones(len(latent), bool)
    mask = place / "mask.mrc"
    noise = place / "noise_radial.npy"
    return Truth(
        place=place,
        grid=Grid(len(mean.values), float(voxel_size)),
        latent=latent,
        labels=_labels(each, good),
        good=good,
        contrast=each.get("contrast"),
        rotations=_read_rotations(place, each),
        defocus=_read_defocus(place, each),
        particles=each.get("particle"),
        noise=read_array(noise).astype(np.float64).ravel() if noise.is_file() else None,
        volumes=volumes,
        volume_latent=_columns(states["latent"]),
        weights=states["weights"] / states["weights"].sum(),
        mean=mean.values,
        mask=read_volume(mask).values if mask.is_file() else None,
        targets=targets,
        target_latent=target_latent,
        scale=float(meta.get("image_scale", 1.0)),
    )


def _columns(values: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "images coordinates"]:
    return values.reshape(len(values), -1).astype(np.float64)


def _labels(
    each: dict[str, np.ndarray], good: Bool[np.ndarray, " images"]
) -> Int[np.ndarray, " images"] | None:
    """Give the states of images where they are discrete; others are −1."""
    states = each.get("state", np.full(len(good), -1)).astype(np.int64)
    return states if (states[good] >= 0).all() and len(np.unique(states[good])) > 1 else None


def _read_meta(place: Path) -> dict:
    path = place / "meta.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a readable table of parameters: {error}.") from error


def _read_volumes(
    place: Path, pattern: str, shape: tuple[int, ...]
) -> Float[np.ndarray, "states z y x"]:
    paths = sorted(place.glob(pattern))
    volumes = np.empty((len(paths), *shape), np.float32)
    for volume, path in zip(volumes, paths, strict=True):
        values = read_volume(path).values
        if values.shape != shape:
            raise InputError(
                f"{path}: expected a box of {shape[0]} voxels like the others, found {len(values)}."
            )
        volume[:] = values
    return volumes


def _refuse_count(what: Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise InputError(f"Expected {wanted} volumes {what}, one per state, found {found}.")


def _read_rotations(
    place: Path, each: dict[str, np.ndarray]
) -> Float[np.ndarray, "images 3 3"] | None:
    beside = place.parent / "poses.pkl"
    if "rotations" in each:
        return each["rotations"].astype(np.float64)
    return read_poses_pickle(beside, len(each["latent"])).rotations if beside.is_file() else None


def _read_defocus(place: Path, each: dict[str, np.ndarray]) -> Float[np.ndarray, " images"] | None:
    beside = place.parent / "ctf.pkl"
    if "defocus_u" in each:
        return 0.5 * (each["defocus_u"] + each["defocus_v"]).astype(np.float64)
    if not beside.is_file():
        return None
    return read_ctf_pickle(beside, len(each["latent"]))[:, 2:4].mean(1)
