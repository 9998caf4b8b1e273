"""What every stage of an analysis works with."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure

from recovar import plots
from recovar.compute.progress import Reporter
from recovar.data.legacy import write_pickle
from recovar.run import Stage
from recovar.workflows.analyzing.config import AnalyzeConfig
from recovar.workflows.finished import FinishedRun
from recovar.workflows.run_embedding import RunEmbedding
from recovar.workflows.workplace import Workplace


@dataclass(frozen=True)
class Analysis:
    """An analysis in progress."""

    config: AnalyzeConfig
    finished: FinishedRun
    embedding: RunEmbedding
    place: Workplace
    reporter: Reporter

    @property
    def coordinates(self) -> Float64[np.ndarray, "images zdim"]:
        """Of the images."""
        return self.embedding.coordinates

    @property
    def zdim(self) -> int:
        """Number of coordinates."""
        return self.coordinates.shape[1]

    @property
    def kmeans(self) -> str:
        """Directory of everything that depends on the clusters, and of its stages."""
        return f"kmeans_{self.config.n_clusters}"

    def writer(self, stage: Stage, directory: str = "") -> Callable[[str], "PathContext"]:
        """Make what gives temporary paths for files of a stage, named from `directory`."""
        prefix = f"{self.place.files}{directory}/" if directory else self.place.files
        return lambda name: stage.write(prefix + name)


PathContext = AbstractContextManager[Path]
Write = Callable[[str], PathContext]


def write_figure(write: Write, name: str, figure: Figure) -> None:
    """Write a picture as NAME.png."""
    with write(f"{name}.png") as partial:
        plots.save_figure(figure, partial)


def write_array_twins(write: Write, name: str, array: np.ndarray) -> None:
    """Write an array as NAME.pkl, for other programs, and as NAME.npy."""
    with write(f"{name}.pkl") as partial:
        write_pickle(partial, array)
    with write(f"{name}.npy") as partial:
        np.save(partial, array)
