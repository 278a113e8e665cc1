"""Published labels as words, codes and counts."""

import pytest

from synthfer.expressions import EXPRESSIONS, ORDERS
from synthfer.sources.labels import by_code, by_usage, by_word, counted, without_expression


def test_a_word_is_a_label_or_the_reason_why_there_is_none():
    assert by_word("Happiness") == {"label": EXPRESSIONS.index("happy")}
    assert by_word("NF") == {"attributes": {"emotion": "NF"}, "reason": without_expression("no face")}


@pytest.mark.parametrize(("code", "first", "word"), [("0", 0, "surprise"), (" 7 ", 1, "neutral"), ("1", 1, "surprise")])
def test_a_code_counts_from_the_first_of_its_order(code, first, word):
    assert by_code(ORDERS["rafdb"], code, first) == {"label": EXPRESSIONS.index(word)}


@pytest.mark.parametrize("code", ["0", "8", "-1", "1.0", "", "x", "9" * 5000, "١"])
def test_any_other_code_is_kept_with_a_reason(code):
    fields = by_code(ORDERS["rafdb"], code, first=1)
    assert fields["attributes"] == {"emotion": code[:200]}
    assert "none of the published codes 1 to 7" in fields["reason"]


def test_an_unknown_usage_is_named():
    assert by_usage("PublicTest") == {"split": "val"}
    assert "'Test'" in by_usage("Test")["reason"]


def test_counts_go_by_expression_and_need_one_for_each_word():
    assert counted(("sadness", "joy"), 3, 5) == {"sad": 3, "happy": 5}
    with pytest.raises(ValueError, match="argument"):
        counted(("sadness", "joy"), 3)


def test_the_reason_of_a_label_uses_the_usual_word():
    assert "labelled 'contempt'," in without_expression("Contemptuous")
    assert "labelled 'grumpy'," in without_expression("grumpy")
    assert all(name not in without_expression("contempt") for name in EXPRESSIONS)
