"""Matrix products against scipy's Gaussian filter."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from salstream.export.smoothing import gaussian_matrix


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    sigma=st.sampled_from([0.0, 0.1, 0.7, 5.0, 7.0]) | st.floats(0.05, 20),
    seed=st.integers(0, 1000),
)
def test_two_matrix_products_are_scipys_filter(
    height: int, width: int, sigma: float, seed: int
) -> None:
    saliency = np.random.default_rng(seed).random((height, width))
    rows, columns = gaussian_matrix(height, sigma).numpy(), gaussian_matrix(width, sigma).numpy()
    smoothed = rows @ saliency @ columns.T
    np.testing.assert_allclose(smoothed, gaussian_filter(saliency, sigma), rtol=0, atol=1e-6)
