import pytest

from synthfer.config import ConfigError
from synthfer.planning.templates import render, slots


def test_a_template_is_filled_and_starts_with_a_capital():
    assert slots("{age} face, {pose}, {age}") == {"age", "pose"}
    assert render("{age} face, {pose}", {"age": "an old", "pose": "head tilted"}) == "An old face, head tilted"


@pytest.mark.parametrize("template", ["{age", "age}", "{}", "{age:>9}", "{age!r}", "{ag{e}}"])
def test_malformed_slots_are_refused_with_the_template(template):
    with pytest.raises(ConfigError) as caught:
        slots(template)
    assert repr(template) in str(caught.value)


def test_attribute_and_index_access_is_no_slot_of_a_vocabulary():
    assert slots("{age.__class__} {age[0]}") == {
        "age.__class__",
        "age[0]",
    }  # unknown slots, so refused on load
