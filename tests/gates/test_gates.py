"""Gates together: every gate sees every picture, reasons add up, and the spec says which gates there were."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from synthfer import gates
from synthfer.gates import GateChain, Verdict, blank, edits
from synthfer.generators import Faces, GeneratedImage
from synthfer.sample import Row
from synthfer.schema import Choice, option

DARK = "tests.gates.test_gates"  # this module is a gate of its own: it has a Config and build


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str = option("brightness", "name of the score")


def build(config: Config) -> "Dark":
    return Dark(config)


class Dark:
    """Rejects pictures darker than half of the range."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, rows: Sequence[Row], faces: Sequence[Faces], images: Sequence[GeneratedImage]) -> list[Verdict]:
        means = [float(image.pixels.mean()) for image in images]
        return [Verdict({self.config.name: mean}, None if mean > 127 else "dark") for mean in means]

    def producer(self) -> dict[str, Any]:
        return {"name": self.config.name}


def rows_and_images(*levels: int) -> tuple[list[Row], list[GeneratedImage]]:
    rows = [Row(index=i, label=0, seed=i) for i in range(len(levels))]
    return rows, [GeneratedImage(np.full((8, 8, 3), level, np.uint8)) for level in levels]


def test_scores_and_reasons_of_all_gates_add_up_in_any_order():
    choices = [Choice("blank", blank.Config()), Choice(DARK, Config())]
    rows, images = rows_and_images(10, 200)
    for order in (choices, choices[::-1]):
        first, second = GateChain(order).check(rows, (), images)
        assert first == Verdict({"contrast": 0.0, "brightness": 10.0}, "contrast 0.000 is below 1; dark")
        assert second == Verdict({"contrast": 0.0, "brightness": 200.0}, "contrast 0.000 is below 1")


def test_without_gates_every_picture_passes():
    rows, images = rows_and_images(10, 200)
    assert GateChain(()).check(rows, (), images) == [Verdict(), Verdict()]
    assert GateChain(()).producer() == {}


def test_two_gates_may_not_give_one_score():
    chain = GateChain([Choice("blank", blank.Config()), Choice(DARK, Config(name="contrast"))])
    with pytest.raises(ValueError, match="contrast"):
        chain.check(*_with_faces(*rows_and_images(10)))


def _with_faces(rows, images):
    return rows, (), images


def test_the_spec_keeps_the_place_of_edits_and_names_the_others():
    chain = GateChain([Choice("edits", edits.Config()), Choice("blank", blank.Config()), Choice(DARK, Config())])
    assert chain.producer() == {
        "gate": {"min_identity": None, "min_gain": None, "identity": None, "judge": None},
        "gates": {"blank": {"min_contrast": 1.0}, DARK: {"name": "brightness"}},
    }


def test_edits_are_gated_by_default_where_there_are_faces():
    assert gates.defaults(with_faces=True) == ["edits"]
    assert gates.defaults(with_faces=False) == []
    assert gates.needs_faces("edits") and not gates.needs_faces("blank")


def test_rows_that_were_made_from_no_face_pass_the_gate_of_edits():
    rows, images = rows_and_images(10, 200)
    images[1] = GeneratedImage(images[1].pixels, box=(2.0, 2.0, 4.0, 4.0))
    source = np.full((8, 8, 3), 190, np.uint8)
    assert gates.build("edits").check(rows, [(), (source,)], images) == [Verdict(), Verdict({"background": 10.0})]
