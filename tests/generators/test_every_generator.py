"""What holds for every generator: a picture is a function of its row and faces, and one bad row fails alone."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthfer import generators, planning
from synthfer.generators import Faces, Failure, GeneratedImage, Generator, Picture
from synthfer.sample import Row
from synthfer.schema import ConfigError
from tests import tiny_pipelines
from tests.generators import tiny_weights

OPERATIONS = [
    ("noise", (0.8,), 1),
    ("interpolate", (0.4,), 2),
    ("recondition", (5.0,), 1),
    ("style", (), 2),
    ("direction", (0.7, 5.0), 1),
    ("tail", (1.0,), 0),
]


def face(seed: int, size: int = 24) -> np.ndarray:
    """Coarse seeded noise, as a picture."""
    return np.kron(np.random.default_rng(seed).integers(0, 256, (4, 4, 3)), np.ones((size // 4, size // 4, 1))).astype(
        np.uint8
    )


def prompt_rows(count: int) -> tuple[list[Row], list[Faces]]:
    texts = ("a happy man", "a sad old woman", "an angry face", "young face")
    rows = [Row(index=i, label=i % 7, seed=50 + i, prompt=texts[i % 4], negative_prompt="old") for i in range(count)]
    return rows, []


def edit_rows(count: int) -> tuple[list[Row], list[Faces]]:
    rows = [Row(index=i, label=i % 7, seed=50 + i, operation="expression", code=(0.9,)) for i in range(count)]
    return rows, [(face(i),) for i in range(count)]


def variation_rows(count: int) -> tuple[list[Row], list[Faces]]:
    told = [OPERATIONS[i % len(OPERATIONS)] for i in range(count)]
    rows = [Row(index=i, label=i % 4, seed=50 + i, operation=name, code=code) for i, (name, code, _) in enumerate(told)]
    return rows, [tuple(face(10 * i + j) for j in range(number)) for i, (_, _, number) in enumerate(told)]


def latent_rows(count: int) -> tuple[list[Row], list[Faces]]:
    return [Row(index=i, label=None, seed=50 + i, operation="sample") for i in range(count)], []


@dataclass(frozen=True)
class Case:
    """A generator with tiny weights, rows for it, and what spoils one of them."""

    name: str
    rows: Callable[[int], tuple[list[Row], list[Faces]]]
    weights: Callable[[Path], str] | None = None
    key: str = "weights"
    options: tuple[tuple[str, Any], ...] = ()
    bad: dict[str, Any] | None = None

    def build(self, folder: Path, **more: Any) -> Generator:
        given = {self.key: self.weights(folder)} if self.weights and not (folder / "done").exists() else {}
        return generators.build(self.name, **given, **dict(self.options), batch_size=4, **more)


def pipeline(folder: Path) -> str:
    return str(tiny_pipelines.save("sd", folder / "sd"))


CASES = [
    Case("simulated", prompt_rows, options=(("seconds_per_batch", 0.0),)),
    Case(
        "diffusion", prompt_rows, pipeline, "model", (("height", 32), ("width", 32), ("steps", 2)),
        {"prompt": "a face " * 200, "negative_prompt": None},
    ),
    Case(
        "expression_editor", edit_rows, tiny_weights.expression_editor,
        options=(("crop", "whole"),), bad={"code": (9.0,)},
    ),
    Case("vae_gan", variation_rows, tiny_weights.vae_gan, bad={"operation": "turn"}),
    Case("gan", latent_rows, tiny_weights.gan, bad={"label": 3}),
]  # fmt: skip
WEIGHED = [case for case in CASES if case.name not in ("simulated", "diffusion")]


def ids(cases: Sequence[Case]) -> list[str]:
    return [case.name for case in cases]


@pytest.fixture(params=CASES, ids=ids(CASES))
def case(request) -> Case:
    return request.param


def pixels(made: Sequence[Picture]) -> list[np.ndarray]:
    assert not [one for one in made if isinstance(one, Failure)]
    return [one.pixels if isinstance(one, GeneratedImage) else np.asarray(one) for one in made]


def make(generator: Generator, rows: Sequence[Row], faces: Sequence[Faces]) -> list[Picture]:
    return generator.make(rows, faces) if faces else generator.make(rows)


def test_all_that_ship_are_tested():
    assert {case.name for case in CASES} == set(generators.names())


def test_a_picture_is_a_function_of_its_row_and_faces(case, tmp_path):
    generator = case.build(tmp_path)
    rows, faces = case.rows(4)
    alone = [pixels(make(generator, [rows[i]], faces[i : i + 1]))[0] for i in range(4)]
    together = pixels(make(generator, rows, faces))
    backwards = pixels(make(generator, rows[::-1], faces[::-1]))[::-1]
    for one, two, three in zip(alone, together, backwards, strict=True):
        assert one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
    assert len({picture.tobytes() for picture in alone}) == 4


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> dict[str, list[str]]:
    """Hashes of what another process makes of the same rows, by generator."""
    script = (
        "import json, sys; from pathlib import Path; import tests.generators.test_every_generator as t\n"
        "print(json.dumps({c.name: t.hashes(c, Path(sys.argv[1]) / c.name) for c in t.CASES}))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    words = [sys.executable, "-c", script, str(tmp_path_factory.mktemp("theirs"))]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def hashes(case: Case, folder: Path) -> list[str]:
    made = pixels(make(case.build(folder), *case.rows(4)))
    return [hashlib.sha256(one.tobytes()).hexdigest() for one in made]


def test_a_second_process_makes_the_same_bytes(case, theirs, tmp_path):
    assert hashes(case, tmp_path) == theirs[case.name]


def test_torch_is_left_as_it_was(case, tmp_path):
    def state() -> tuple[Any, ...]:
        return (
            torch.random.get_rng_state().tolist(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002 - the state that must not be touched
        )

    before = state()
    make(case.build(tmp_path), *case.rows(2))
    assert state() == before


def test_the_producer_is_json_and_holds_no_path(case, tmp_path):
    told = json.dumps(case.build(tmp_path).producer())
    assert str(tmp_path) not in told
    if case in WEIGHED:
        path = next(tmp_path.rglob("*.safetensors"))
        assert json.loads(told)["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_bad_row_fails_alone(case, tmp_path):
    if case.bad is None:
        pytest.skip("no row can be bad")
    more = {"long_prompts": "fail"} if case.name == "diffusion" else {}
    generator = case.build(tmp_path, **more)
    rows, faces = case.rows(3)
    good = pixels(make(generator, rows, faces))
    made = make(generator, [rows[0], replace(rows[1], **case.bad), rows[2]], faces)
    assert isinstance(made[1], Failure) and made[1].reason
    for i in (0, 2):
        np.testing.assert_array_equal(pixels([made[i]])[0], good[i])


def test_a_row_whose_faces_are_missing_or_too_many_fails_alone(case, tmp_path):
    rows, faces = case.rows(3)
    if not faces:
        pytest.skip("made from no faces")
    made = case.build(tmp_path).make(rows, [faces[0], (), (*faces[2], face(1), face(2))])
    assert [isinstance(one, Failure) for one in made] == [False, True, True]


def test_a_grey_or_tiny_face_is_made_something_of(case, tmp_path):
    rows, faces = case.rows(1)
    if not faces:
        pytest.skip("made from no faces")
    grey = np.repeat(face(1)[..., :1], 3, axis=2)
    for picture in (grey, grey[:5, :7], face(1, 256)):
        assert len(pixels(case.build(tmp_path).make(rows, [(picture,)]))) == 1


@pytest.mark.parametrize("other", WEIGHED, ids=ids(WEIGHED))
@pytest.mark.parametrize("own", WEIGHED, ids=ids(WEIGHED))
def test_a_checkpoint_of_another_architecture_is_refused_with_both_names(own, other, tmp_path):
    assert other.weights
    architecture = {"gan": "dcgan"}
    names = [architecture.get(case.name, case.name) for case in (own, other)]
    uri = other.weights(tmp_path)
    if own is other:
        generators.build(own.name, weights=uri)
        return
    with pytest.raises(ConfigError, match=f"{names[1]}.*{names[0]}"):
        generators.build(own.name, weights=uri)


def test_every_generator_names_a_kind_of_plan():
    assert {generators.plan_of(name) for name in generators.names()} == set(planning.names())
