"""The table names both smoothers of a level, and does not invent numbers of unknowns."""

from mgnet import Hierarchy, Jacobi, Level, gallery
from mgnet.hierarchy_table import table


def test_post_smoothers_are_named():
    told = table(gallery.poisson(7, smoother=Jacobi(0.5), post_smoother=Jacobi(0.25)))
    assert "Jacobi(omega=0.5) / Jacobi(omega=0.25)" in told.splitlines()[2]


def test_unknown_sizes_are_marked():
    told = table(Hierarchy([Level(lambda u: u, Jacobi())]).levels)
    assert told.splitlines()[0] == "Hierarchy of 1 levels" and "?" in told.splitlines()[2]
