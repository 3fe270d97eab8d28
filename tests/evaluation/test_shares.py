from __future__ import annotations

import numpy as np

from lmanet.evaluation.shares import ClassShares


def test_shares_of_all_frames_together():
    shares = ClassShares(4)
    assert np.isnan(shares.compute()).all() and len(shares.compute()) == 4
    shares.update(np.array([[0, 0], [2, 1]], np.uint8))
    shares.update(np.array([[2, 2], [2, 2]], np.uint8))
    np.testing.assert_allclose(shares.compute(), [2 / 8, 1 / 8, 5 / 8, 0])
