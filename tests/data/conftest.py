"""Tables and stacks that tests of `recovar.data` share."""

from pathlib import Path

import numpy as np
import pytest

from recovar.core.ctf import Optics
from recovar.core.poses import random_rotations
from recovar.data import ImageTable


@pytest.fixture
def zoo(shared):
    """Files of other programs, kept outside the repository."""
    return shared / "data" / "zoo"


@pytest.fixture(scope="session")
def make_table():
    """Make a table of random images in the stacks a.mrcs and b.mrcs."""

    def make(count=6, box=8, seed=0, **changes):
        generator = np.random.default_rng(seed)

        def draw(low, high):
            return generator.uniform(low, high, count).astype(np.float32)

        values = {
            "source": Path("made.star"),
            "stacks": ("a.mrcs", "b.mrcs"),
            "stack_index": (np.arange(count) % 2).astype(np.int32),
            "slice_index": np.arange(count, dtype=np.int64) // 2,
            "identity": np.array([f"{i // 2 + 1:06d}@{'ab'[i % 2]}.mrcs" for i in range(count)]),
            "box": np.full(count, box),
            "pixel_size": np.full(count, 1.5),
            "rotations": random_rotations(count, generator),
            "shifts": generator.uniform(-4, 4, (count, 2)),
            "optics": Optics(
                defocus_u=draw(1e4, 2e4),
                defocus_v=draw(1e4, 2e4),
                defocus_angle=draw(-1.5, 1.5),
                voltage=np.full(count, 300, np.float32),
                spherical_aberration=np.full(count, 2.7, np.float32),
                amplitude_contrast=np.full(count, 0.1, np.float32),
                phase_shift=draw(0, 1),
                b_factor=np.zeros(count, np.float32),
                scale=np.ones(count, np.float32),
            ),
            "half": (np.arange(count) // 2 % 2).astype(np.int8),
        }
        return ImageTable(**(values | changes))

    return make
