"""The expression editor as a generator: the way of a face, and rows that fail alone."""

import dataclasses
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from synthfer import generators
from synthfer.canonical import canonical_json
from synthfer.checkpoints import OWN
from synthfer.expressions import EXPRESSIONS
from synthfer.faces import mtcnn
from synthfer.faces.align import transformed
from synthfer.faces.codeformer import CodeFormer
from synthfer.faces.restoration import Restorer
from synthfer.faces.restoration_config import CodeFormerConfig, RestoreConfig
from synthfer.generators import Failure, GeneratedImage
from synthfer.generators.expression_editor import Config, build
from synthfer.generators.expression_editor.editor import ExpressionEditor
from synthfer.generators.expression_editor.networks import Generator, NetworkConfig
from synthfer.sample import Row, pixels_hash
from synthfer.schema import ConfigError
from synthfer.sources.avatars import draw, sample_attributes
from tests.drawn_faces import DETECTABLE, draw_faces

NETWORK: dict[str, Any] = {"space": "linear", "channels": "RGB", "size": 32, "width": 4, "blocks": 1, "code": "blocks"}
Face = tuple[np.ndarray]


def saved(path: Path, facts: dict[str, Any] | None = None, **options: Any) -> Path:
    """A network with random weights and its card."""
    torch.manual_seed(0)
    network = Generator(NetworkConfig(**(NETWORK | options)))
    save_file(network.state_dict(), path)
    card = {"architecture": "expression_editor", "options": dataclasses.asdict(network.config)} | (facts or {})
    path.with_suffix(".card.yaml").write_text(yaml.safe_dump(card))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("editor") / "model.safetensors")


def editor(path: Path, **options: Any) -> ExpressionEditor:
    return build(Config(**({"weights": str(path), "crop": "whole", "batch_size": 4, "device": "cpu"} | options)))


def row(i: int = 0, operation: str = "expression", code: tuple[float, ...] = (1.0,), label: int | None = None) -> Row:
    return Row(index=i, label=i % 7 if label is None else label, seed=i, operation=operation, code=code)


def face(seed: int, size: int = 48) -> Face:
    return (draw(sample_attributes(seed), size),)


def picture(made: Any) -> np.ndarray:
    assert isinstance(made, GeneratedImage), made
    return made.pixels


def hashes(made: list[Any]) -> list[str]:
    return [pixels_hash(picture(one)) for one in made]


# -- a picture is a function of its row


def test_a_picture_does_not_depend_on_its_neighbours(weights: Path) -> None:
    generator = editor(weights)
    rows, faces = [row(i) for i in range(4)], [face(i, size) for i, size in enumerate((48, 32, 64, 48))]
    alone = hashes(generator.make(rows, faces))
    assert len(set(alone)) == 4
    assert hashes(generator.make(rows[::-1], faces[::-1])) == alone[::-1]
    assert hashes(generator.make(rows[3:], faces[3:])) == alone[3:]
    assert hashes(generator.make([row(6), rows[1], row(9)], [face(8), faces[1], face(9)]))[1] == alone[1]
    assert hashes(editor(weights).make(rows, faces)) == alone


def test_sizes_stay_and_the_crop_is_told(weights: Path) -> None:
    wide = (np.ascontiguousarray(face(1, 64)[0][:40]),)
    made = editor(weights).make([row(1), row(2)], [face(1, 48), wide])
    assert [picture(one).shape for one in made] == [(48, 48, 3), (40, 64, 3)]
    assert isinstance(made[1], GeneratedImage)
    assert made[1].box == (0, 0, 64, 40)
    assert made[1].matrix is not None
    corners = transformed(made[1].matrix, np.array([[0.0, 0], [64, 40]]))
    np.testing.assert_allclose(corners, [[0, 0], [32, 32]])
    assert 0 < made[1].scores["change"] < 1


def test_the_network_sees_the_faces_pixels_and_its_own_come_back(tmp_path: Path) -> None:
    """At the network's own size nothing is resampled: the result is the network's, rounded."""
    path = saved(tmp_path / "model.safetensors")
    generator, (pixels,) = editor(path), face(3, 32)
    made = picture(generator.make([row(3, "point", (0.4, -0.6))], [(pixels,)])[0])
    torch.manual_seed(0)
    network = Generator(NetworkConfig(**NETWORK))
    with torch.no_grad():
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 127.5 - 1
        edit = network(image, torch.tensor([[0.4, -0.6]]))[0].permute(1, 2, 0)
    np.testing.assert_allclose(made, ((edit + 1) * 127.5).numpy(), atol=0.51)


def test_a_bgr_network_sees_and_gives_bgr(tmp_path: Path) -> None:
    rgb = saved(tmp_path / "rgb.safetensors")
    bgr = saved(tmp_path / "bgr.safetensors", channels="BGR")
    (pixels,) = face(3, 32)
    turned = np.ascontiguousarray(pixels[..., ::-1])
    ask = [row(3)]
    plain = picture(editor(rgb).make(ask, [(turned,)])[0])
    assert np.array_equal(picture(editor(bgr).make(ask, [(pixels,)])[0]), plain[..., ::-1])
    assert not np.array_equal(picture(editor(rgb).make(ask, [(pixels,)])[0]), plain[..., ::-1])


def test_codes_reach_the_pixels(weights: Path) -> None:
    generator, source = editor(weights, batch_size=8), face(5)
    rows = [row(3, code=(0.2,)), row(3, code=(1.0,)), row(4), row(3, "polar", (1.0, 0.7)), row(3, "point", (0.1, 0.9))]
    assert len(set(hashes(generator.make(rows, [source] * 5)))) == 5
    axis = generator.plane.landmarks[3]
    same = [row(3, code=(0.5,)), row(1, "point", tuple(0.5 * axis))]
    made = hashes(generator.make(same, [source] * 2))
    assert made[0] == made[1]


# -- finding and putting back


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    try:
        version("facenet-pytorch")
    except PackageNotFoundError:
        pytest.skip(f"no weights of the face detector; run: {mtcnn.INSTALL}")
    return draw_faces(DETECTABLE[:1], 256)[0]


def test_a_found_face_is_edited_and_the_rest_keeps_its_bits(weights: Path, portrait: np.ndarray) -> None:
    for mode in ("feather", "hard"):
        generator = editor(weights, crop="detect", paste=mode)
        (made,) = generator.make([row(3)], [(portrait,)])
        assert isinstance(made, GeneratedImage)
        assert made.pixels.shape == portrait.shape
        assert made.box is not None
        left, top, right, bottom = made.box
        assert right - left == pytest.approx(bottom - top)
        assert made.scores["face"] >= 0.9
        outside = np.ones(portrait.shape[:2], bool)
        outside[max(0, int(top)) : int(np.ceil(bottom)), max(0, int(left)) : int(np.ceil(right))] = False
        assert outside.any()
        assert np.array_equal(made.pixels[outside], portrait[outside])
        assert not np.array_equal(made.pixels, portrait)
        assert made.matrix is not None
        np.testing.assert_allclose(
            transformed(made.matrix, np.array([[left, top], [right, bottom]])), [[0, 0], [32, 32]], atol=1e-9
        )


def test_the_margin_widens_the_square(weights: Path, portrait: np.ndarray) -> None:
    boxes = []
    for margin in (0.0, 0.25):
        (made,) = editor(weights, crop="detect", margin=margin).make([row()], [(portrait,)])
        assert isinstance(made, GeneratedImage)
        assert made.box is not None
        boxes.append(np.array(made.box))
    side = boxes[0][2] - boxes[0][0]
    np.testing.assert_allclose(boxes[1] - boxes[0], np.array([-1, -1, 1, 1]) * side / 4)


# -- restoration

SMALL = CodeFormerConfig(size=64, width=32, multiples=(1, 2, 2), codes=16, code_width=32, dim=32, heads=4, layers=2)


@pytest.fixture(scope="module")
def restore(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a small CodeFormer with random weights that are far from nothing."""
    path = tmp_path_factory.mktemp("restore") / "codeformer.pth"
    torch.manual_seed(0)
    network = CodeFormer(SMALL)
    torch.nn.init.normal_(network.position_emb)
    torch.save({"params_ema": network.state_dict()}, path)
    return {"weights": str(path), "network": SMALL, "batch_size": 2}


def test_a_face_is_restored_before_it_goes_back(weights: Path, restore: dict[str, Any]) -> None:
    config = RestoreConfig(**restore)
    rows, faces = [row(i) for i in range(3)], [face(i, 64) for i in range(3)]
    generator = editor(weights, restore=config)
    made = generator.make(rows, faces)
    plain = editor(weights)
    crops = [plain.detect(one) for (one,) in faces]
    edits = plain.edit([crop.pixels for crop in crops if crop], [plain.plane.point(one) for one in rows])
    drawn = Restorer(config).apply(np.stack([edit for edit in edits if edit is not None]), [0] * 3, size=64)
    assert all(np.array_equal(picture(one), by_hand) for one, by_hand in zip(made, drawn, strict=True))
    assert hashes(generator.make(rows[2:], faces[2:])) == hashes(made)[2:]
    assert generator.producer()["restored"] == "face"
    assert len(generator.producer()["restore"]["weights_sha256"]) == 64
    assert "restore" not in plain.producer()


def test_a_whole_picture_is_restored_with_its_seam(
    weights: Path, restore: dict[str, Any], portrait: np.ndarray
) -> None:
    config = RestoreConfig(degrade=True, **restore)
    options: dict[str, Any] = {"crop": "detect", "paste": "hard"}
    (plain,) = editor(weights, **options).make([row(3)], [(portrait,)])
    generator = editor(weights, restore=config, restored="picture", **options)
    made = generator.make([row(3), row(1)], [(portrait,), face(1, 64)])
    assert isinstance(plain, GeneratedImage)
    by_hand = Restorer(config).apply(plain.pixels[None], [3], [plain.box])
    assert np.array_equal(picture(made[0]), by_hand[0])
    assert hashes(generator.make([row(3)], [(portrait,)])) == hashes(made[:1])


# -- rows that fail, alone


def test_rows_fail_alone_and_say_why(weights: Path, portrait: np.ndarray) -> None:
    generator = editor(weights, crop="detect", batch_size=8)
    blank = np.full((64, 64, 3), 200, np.uint8)
    rows = [row(3), row(1), row(2, code=(9.0,)), row(3, "noise"), row(4), row(5)]
    faces: list[Any] = [(portrait,), (blank,), (portrait,), (portrait,), (), (portrait, portrait)]
    made = generator.make(rows, faces)
    reasons = [one.reason if isinstance(one, Failure) else "" for one in made]
    assert reasons[0] == ""
    assert reasons[1].startswith("no face found with a probability of 0.9")
    assert "intensity is 9, expected 0..1.5" in reasons[2]
    assert "unknown operation 'noise'" in reasons[3]
    assert reasons[4:] == [
        "an edit is made from one face, the row has 0",
        "an edit is made from one face, the row has 2",
    ]
    assert pixels_hash(picture(made[0])) == hashes(generator.make(rows[:1], faces[:1]))[0]


def test_values_that_are_not_finite_fail_their_row_alone(weights: Path) -> None:
    generator = editor(weights)
    whole = generator.make([row(1), row(2)], [face(1), face(2)])
    forward = generator._network.forward
    spoil = generator.plane.point(row(1))

    def spoiled(images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        edits = forward(images, points)
        edits[(points == torch.from_numpy(spoil)).all(1), 0, 0, 0] = torch.nan
        return edits

    generator._network.forward = spoiled  # type: ignore[method-assign]
    made = generator.make([row(1), row(2)], [face(1), face(2)])
    assert made[0] == Failure("the edited face has values that are not finite (NaN)")
    assert hashes(made[1:]) == hashes(whole[1:])


def test_a_picture_of_another_kind_fails_alone(weights: Path) -> None:
    grey: Any = (np.zeros((48, 48), np.uint8),)
    made = editor(weights).make([row(1), row(2)], [grey, face(2)])
    assert isinstance(made[0], Failure)
    assert isinstance(made[1], GeneratedImage)


def test_calls_with_too_many_rows_or_without_their_faces_are_refused(weights: Path) -> None:
    generator = editor(weights)
    with pytest.raises(ValueError, match="5 rows with 5 sources"):
        generator.make([row()] * 5, [face(0)] * 5)
    with pytest.raises(ValueError, match="1 rows with 0 sources"):
        generator.make([row()])
    assert generator.make([], []) == []


# -- weights


def test_another_architecture_or_an_open_card_is_refused(tmp_path: Path) -> None:
    other = saved(tmp_path / "other.safetensors", {"architecture": "vae_gan"})
    with pytest.raises(ConfigError, match="is of 'vae_gan', while 'expression_editor' is wanted"):
        editor(other)
    options = dataclasses.asdict(NetworkConfig(**NETWORK))
    del options["channels"]
    open_card = saved(tmp_path / "open.safetensors", {"options": options})
    with pytest.raises(ConfigError, match=r"channels"):
        editor(open_card)
    larger = saved(tmp_path / "larger.safetensors", {"options": options | {"channels": "RGB", "width": 8}})
    with pytest.raises(ValueError, match=r"main\.0\.weight"):
        editor(larger)
    odd = saved(tmp_path / "odd.safetensors", {"options": options | {"channels": "RGB", "size": 50}})
    with pytest.raises(ConfigError, match="size: 50 is not a multiple of 4"):
        editor(odd)


def test_a_published_file_loads_by_its_own_keys(tmp_path: Path) -> None:
    """As the authors saved it: a pickled state dict, running statistics and all; small here."""
    torch.manual_seed(0)
    network = Generator(NetworkConfig(space="linear", size=32, width=4, blocks=2, channels="BGR"))
    state = network.state_dict()
    state["main.1.running_mean"] += 3
    torch.save(state, tmp_path / "1000000-G.ckpt")
    card = {"architecture": "expression_editor", "options": dataclasses.asdict(network.config)}
    (tmp_path / "1000000-G.card.yaml").write_text(yaml.safe_dump(card))
    generator, (pixels,) = editor(tmp_path / "1000000-G.ckpt"), face(3, 32)
    made = picture(generator.make([row(3, "polar", (0.3, 1.2))], [(pixels,)])[0])
    bgr = torch.from_numpy(pixels[..., ::-1].transpose(2, 0, 1).copy())[None].float() / 127.5 - 1
    point = 1.2 * torch.tensor([[np.cos(0.3), np.sin(0.3)]], dtype=torch.float32)
    with torch.no_grad():
        by_hand = (network.train()(bgr, point)[0, [2, 1, 0]].permute(1, 2, 0) / 2 + 0.5) * 255
    np.testing.assert_allclose(made, by_hand.numpy(), atol=0.51)


def test_the_producer_is_json_about_weights_and_the_way_of_a_face(weights: Path, tmp_path: Path) -> None:
    found = editor(weights).producer()
    assert canonical_json(found)
    assert found["generator"] == "expression_editor"
    assert len(found["weights_sha256"]) == 64
    assert found["crop"] == "whole"
    assert found["options"]["size"] == 32
    assert str(tmp_path) not in str(found)
    assert editor(weights, paste="hard").producer() != found
    detected = editor(weights, crop="detect").producer()
    assert detected["detector"]["name"] == "mtcnn"


def test_it_is_registered_with_the_plan_of_edits(weights: Path) -> None:
    assert generators.plan_of("expression_editor") == "edits"
    generator = generators.build("expression_editor", weights=str(weights), crop="whole", batch_size=7)
    made = generator.make([row(i) for i in range(7)], [face(0)] * 7)
    assert len(set(hashes(made))) == len(EXPRESSIONS)
    assert generator.source_type == "compositeWithTrainedAlgorithmicMedia"  # type: ignore[attr-defined]


def test_weights_of_unknown_origin_come_with_the_published_ones_licence(tmp_path: Path, caplog: Any) -> None:
    editor(saved(tmp_path / "own.safetensors", {"source": OWN}))
    assert "not for commercial use" not in caplog.text
    editor(saved(tmp_path / "theirs.safetensors"))
    assert "the published weights of GANmut are not for commercial use" in caplog.text
