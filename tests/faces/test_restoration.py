"""CodeFormer as published, part by part; a small one restores in fixed batches; SyntFER's damage is in its place."""

import logging

import numpy as np
import pytest
import torch

from synthfer.checkpoints import log_licence
from synthfer.config import load
from synthfer.faces import restoration
from synthfer.faces.codeformer import PARAMETERS, CodeFormer
from synthfer.faces.restoration import Restorer, degraded
from synthfer.faces.restoration_config import CodeFormerConfig, RestoreConfig
from synthfer.schema import ConfigError

SMALL = CodeFormerConfig(size=64, width=32, multiples=(1, 2, 2), codes=16, code_width=32, dim=32, heads=4, layers=2)


def counted(*parts: torch.nn.Module) -> int:
    return sum(values.numel() for part in parts for values in part.parameters())


@pytest.fixture(scope="module")
def published() -> CodeFormer:
    with torch.device("meta"):
        return CodeFormer(CodeFormerConfig())


@pytest.fixture(scope="module")
def small() -> CodeFormer:
    torch.manual_seed(0)
    network = CodeFormer(SMALL)
    torch.nn.init.normal_(network.position_emb)
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "codeformer.pth"
    torch.save({"params_ema": small.state_dict()}, path)
    return str(path)


def restorer(checkpoint: str, **options) -> Restorer:
    return Restorer(RestoreConfig(weights=checkpoint, network=SMALL, **options))


def faces(n: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_it_has_the_published_parameters_part_by_part(published):
    assert counted(published) == PARAMETERS == 94_112_707
    assert counted(published.encoder) == 29_416_000
    assert counted(published.generator) == 34_061_955
    assert counted(published.ft_layers) == 18_925_056
    assert counted(published.fuse_convs_dict) == 10_659_584
    assert counted(published.quantize) == 1024 * 256


def test_keys_are_those_of_the_published_file(published):
    shapes = {key: tuple(value.shape) for key, value in published.state_dict().items()}
    assert len(shapes) == 515
    expected = {
        "position_emb": (256, 512),
        "feat_emb.weight": (512, 256),
        "ft_layers.8.self_attn.in_proj_weight": (1536, 512),
        "ft_layers.0.linear1.weight": (1024, 512),
        "idx_pred_layer.1.weight": (1024, 512),
        "quantize.embedding.weight": (1024, 256),
        "encoder.blocks.0.weight": (64, 3, 3, 3),
        "encoder.blocks.3.conv.weight": (64, 64, 3, 3),
        "encoder.blocks.17.q.weight": (512, 512, 1, 1),
        "encoder.blocks.24.weight": (256, 512, 3, 3),
        "generator.blocks.0.weight": (512, 256, 3, 3),
        "generator.blocks.9.conv_out.weight": (256, 512, 1, 1),
        "generator.blocks.24.weight": (3, 64, 3, 3),
        "fuse_convs_dict.32.encode_enc.conv1.weight": (256, 512, 3, 3),
        "fuse_convs_dict.256.shift.2.weight": (128, 128, 3, 3),
    }
    assert {key: shapes.get(key) for key in expected} == expected


def test_codes_are_mixed_in_where_the_paper_does(published):
    assert sorted(published.fuse_convs_dict) == ["128", "256", "32", "64"]
    assert sorted(published.encoder.taps) == [2, 5, 8, 11, 14]
    assert sorted(published.generator.taps)[1:] == [9, 12, 15, 18, 21]


def test_the_whole_network_takes_512_pixels(published):
    out = published(torch.empty(2, 3, 512, 512, device="meta"), 0.5, True)
    assert out.shape == (2, 3, 512, 512)


def test_without_fidelity_the_face_is_that_of_its_codes_alone(small):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        features, _ = small.encoder(images)
        codes = small.logits(features).argmax(-1)
        words = small.quantize.embedding.weight[codes].reshape(1, 16, 16, 32).permute(0, 3, 1, 2)
        alone = small.generator(words, lambda drawn: drawn)
        torch.testing.assert_close(small(images, 0.0, adain=False), alone)
        # The fusion is linear in w at each size, so a small w changes little, a large one more.
        little, much = ((small(images, w, adain=False) - alone).abs().mean() for w in (0.01, 1.0))
    assert 0 < little < 0.2 * much


def test_adain_gives_the_codes_the_light_of_the_input(small):
    from synthfer.faces.codeformer import _adain

    draw = torch.Generator().manual_seed(2)
    values, like = torch.randn(2, 5, 8, 8, generator=draw), 3 * torch.randn(2, 5, 8, 8, generator=draw) + 7
    adapted = _adain(values, like)
    torch.testing.assert_close(adapted.mean((2, 3)), like.mean((2, 3)))
    torch.testing.assert_close(adapted.std((2, 3)), like.std((2, 3)), rtol=1e-3, atol=1e-3)


def test_a_face_depends_on_no_neighbour(checkpoint):
    some = faces(5)
    step = restorer(checkpoint, batch_size=2, degrade=True)
    boxes = [(8.0, 8.0, 56.0, 56.0), None, (0.0, 0.0, 64.0, 64.0), None, None]
    together = step.apply(some, range(5), boxes)
    assert together.shape == some.shape and together.dtype == np.uint8
    for i in (0, 3, 4):
        np.testing.assert_array_equal(step.apply(some[i : i + 1], [i], boxes[i : i + 1])[0], together[i])
    assert (step.apply(some[:1], [9], boxes[:1])[0] != together[0]).any()


def test_faces_keep_their_shape_or_take_the_size_asked_for(checkpoint):
    step = restorer(checkpoint)
    assert step.apply(faces(3, 40, 56), range(3)).shape == (3, 40, 56, 3)
    assert step.apply(faces(1, 40, 56), [0], size=64).shape == (1, 64, 64, 3)
    assert step.apply(faces(0), []).shape == (0, 64, 64, 3)


def test_the_network_gives_what_the_step_gives(checkpoint, small):
    face = faces(1)
    with torch.inference_mode():
        drawn = small(torch.from_numpy(face).permute(0, 3, 1, 2).repeat(4, 1, 1, 1) / 255 * 2 - 1, 0.5, True)[0]
    expected = ((drawn.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(restorer(checkpoint).apply(face, [0])[0], expected)


def test_the_ring_is_30_pixels_of_512_thick_and_follows_the_box():
    ring = restoration._ring((100.0, 120.0, 400.0, 420.0), 512)
    row = ring[270]
    assert row.nonzero().flatten().tolist() == [*range(85, 115), *range(385, 415)]
    assert ring[:, 250].sum() == 60 and ring[50].sum() == 0
    assert ring[110].sum() == 400 - 100 + 30


def test_the_damage_is_heaviest_on_the_ring():
    grey = torch.full((3, 512, 512), 0.5)
    ring = restoration._ring((100.0, 100.0, 400.0, 400.0), 512)
    damaged = degraded(grey, ring, 5)
    inside, on = damaged[:, 200:300, 200:300], damaged[:, ring > 0]
    assert inside.std() == pytest.approx(0.05, rel=0.05)
    # On the ring the blurred noise of 0.15 is added: a 5 x 5 Gaussian of sigma 2 leaves about a fifth of it.
    assert on.std() == pytest.approx((0.05**2 + (0.15 * 0.2) ** 2) ** 0.5, rel=0.1)
    assert damaged.mean() == pytest.approx(0.5, abs=1e-3)
    torch.testing.assert_close(degraded(grey, ring, 5), damaged, rtol=0, atol=0)
    away = damaged[:, :60, :60]
    torch.testing.assert_close(degraded(grey, None, 5)[:, :60, :60], away, rtol=0, atol=0)


def test_a_blur_keeps_light_and_spreads_a_point_as_a_gaussian():
    point = torch.zeros(3, 31, 31)
    point[:, 15, 15] = 1
    spread = restoration._blurred(point, 15, 5.0)
    assert spread.sum() == pytest.approx(3, rel=1e-5)
    assert spread[0, 15, 20] / spread[0, 15, 15] == pytest.approx(np.exp(-0.5), rel=1e-5)
    assert spread[0, 15, 23] == 0
    torch.testing.assert_close(
        restoration._blurred(torch.full((3, 20, 20), 0.3), 15, 5.0), torch.full((3, 20, 20), 0.3)
    )


def test_the_licence_is_logged_when_weights_load(checkpoint, caplog):
    log_licence.cache_clear()
    with caplog.at_level(logging.WARNING):
        step = restorer(checkpoint, fidelity=0.7)
        restorer(checkpoint)
    assert [record.getMessage() for record in caplog.records if "S-Lab" in record.getMessage()] == [
        f"{checkpoint}: licence: {restoration.LICENCE}"
    ]
    producer = step.producer()
    assert producer["fidelity"] == 0.7 and len(producer["weights_sha256"]) == 64 and checkpoint not in str(producer)


def test_errors_say_what_cannot_be_restored(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=r"restore\.weights is not given"):
        Restorer(RestoreConfig())
    with pytest.raises(ConfigError, match=r"there is no .*absent\.pth"):
        Restorer(RestoreConfig(weights=str(tmp_path / "absent.pth"), network=SMALL))
    with pytest.raises(ConfigError, match=r"does not fit CodeFormer:\n.*missing"):
        Restorer(RestoreConfig(weights=checkpoint))
    step = restorer(checkpoint)
    with pytest.raises(ValueError, match="faces are float64"):
        step.apply(np.zeros((1, 8, 8, 3)), [0])
    with pytest.raises(ValueError, match="2 seeds and 1 boxes for 1 faces"):
        step.apply(faces(1), [0, 1])


def test_options_are_checked_and_nest():
    read = load(RestoreConfig, ["fidelity=0", "network.size=64", "network.multiples=[1,2]"])
    assert read.fidelity == 0 and read.network.size == 64 and tuple(read.network.multiples) == (1, 2)
    for word, what in [("fidelity=1.5", "fidelity: expected"), ("network.width=40", "multiple of 32")]:
        with pytest.raises(ConfigError, match=what):
            load(RestoreConfig, [word])
