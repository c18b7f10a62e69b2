"""Other words are refused."""

import pytest

from mgnet.depth.mgrit.coarse_kinds import COARSE, check_coarse


@pytest.mark.parametrize("coarse", ["Mean", "", None, 1, ["mean"]])
def test_only_four_words(coarse):
    for known in COARSE:
        check_coarse("plan", known)
    with pytest.raises(ValueError, match=r"plan got coarse .*; it must be one of mean, first"):
        check_coarse("plan", coarse)
