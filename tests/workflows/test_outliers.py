"""What a run says about images that may be junk."""

import numpy as np

from recovar.records import load_arrays
from recovar.workflows.run_outliers import read_outliers


def test_a_run_suspects_hardly_any_image_of_a_clean_set(run):
    found = read_outliers(run)
    assert found is not None
    embedding = load_arrays(run / "output" / "embedding" / "zdim2.npz")
    np.testing.assert_array_equal(
        load_arrays(run / "output" / "outliers.npz")["row"], embedding["row"]
    )
    assert len(found.probability) == len(embedding["row"])
    assert (found.probability > 0.5).mean() < 0.01
    assert np.median(found.log_odds) < -10
    assert "likelier ice" in (run / "run.log").read_text()


def test_an_older_run_has_not_asked(tmp_path):
    assert read_outliers(tmp_path) is None
