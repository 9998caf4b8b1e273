"""What every stage of a command works with."""

from dataclasses import dataclass

from recovar.compute.executors import LocalExecutor
from recovar.data.bank import BLOCK_BYTES, ImageBank
from recovar.run import Run
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.inputs import Inputs

_TEMPORARY_BYTES = 256 << 20
"""What one block of images may take with its slices of all volumes."""


@dataclass(frozen=True)
class Work:
    """A run in progress."""

    config: PipelineConfig
    inputs: Inputs
    run: Run
    executor: LocalExecutor
    budget: int
    """Bytes of memory that may be used."""

    def bank(self, sign: float, channels: int, fixed: int) -> ImageBank:
        """Make the stream of images.

        Args:
            sign: Multiplies the images.
            channels: Volumes that every image is sliced from.
            fixed: Bytes that are needed besides the images.
        """
        temporary = min(_TEMPORARY_BYTES, self.budget // 8)
        # A pixel takes 12 bytes, and about 20 more for every slice through it.
        block = min(BLOCK_BYTES, int(temporary * 12 / (12 + 20 * channels)))
        return ImageBank(
            self.inputs.particles,
            self.inputs.halves,
            memory=max(0, self.budget - fixed - temporary),
            sign=sign,
            block_bytes=max(block, 1),
            box=self.inputs.grid.size,
        )
