"""Members of a package by name, one's own by dotted name, and who is told what is not there."""

import pytest

from synthfer import classifiers, embedders, gates, generators, sources


@pytest.mark.parametrize("package", [classifiers, generators, sources, embedders, gates])
def test_every_member_is_a_module_with_options(package):
    assert package.names()
    for name in package.names():
        assert hasattr(package.module(name), "Config")


def test_a_name_with_a_dot_is_a_module_of_ones_own():
    assert generators.module("tests.engine.failing_generators").__name__ == "tests.engine.failing_generators"


def test_the_nearest_name_is_asked_for():
    with pytest.raises(ValueError, match=r"unknown source 'fer2031'; did you mean 'fer2013'\? Known: affectnet, "):
        sources.module("fer2031")
    with pytest.raises(ValueError, match="unknown source 'tables'"):  # shared, not a source
        sources.module("tables")
