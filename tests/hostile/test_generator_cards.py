"""Checkpoints of generators, detectors and restorers from strangers: refused before a network so large is built."""

import os
import resource

import pytest
import yaml

from synthfer.faces.mtcnn import SHA256, Detector
from synthfer.faces.restoration import Restorer
from synthfer.faces.restoration_config import CodeFormerConfig, RestoreConfig
from synthfer.generators import expression_editor, gan, vae_gan
from tests.generators import tiny_weights
from tests.hostile.exit_codes import refusal
from tests.hostile.weight_files import torch_file
from tests.special_files import SPECIAL_FILES

EDITOR = {"space": "linear", "size": 16, "width": 8, "blocks": 1, "channels": "RGB"}
GAN = {"latent": 8, "width": 4, "size": 16}
VAE_GAN = {"size": 32, "width": 8, "latent": 6}
OPTIONS = {
    "gan, latent 10^9": (gan, GAN | {"latent": 10**9}, "latent: expected integer from 1 to"),
    "gan, latent of its bound": (gan, GAN | {"latent": 65_536}, "of another shape"),
    "gan, 10^6 channels": (gan, GAN | {"width": 10**6}, "width: expected integer from 1 to"),
    "gan, 4,096 channels of 256 pixels": (gan, GAN | {"width": 4096, "size": 256}, "does not fit Dcgan"),
    "gan, 10^6 pixels": (gan, GAN | {"size": 10**6}, "size: 1000000 is not one of"),
    "gan, unknown class": (gan, GAN | {"classes": ["os.path"]}, "unknown expression 'os.path'"),
    "gan, classes in a map": (gan, GAN | {"classes": {}}, "classes: expected list"),
    "gan, unknown option": (gan, GAN | {"depth": 3}, "unknown key depth"),
    "gan, an interpolation": (gan, GAN | {"latent": "${oc.env:HOME}"}, "latent: expected integer"),
    "editor, 10^6 pixels": (expression_editor, EDITOR | {"size": 10**6}, "size: expected integer from 8 to"),
    "editor, 10^9 blocks": (expression_editor, EDITOR | {"blocks": 10**9}, "blocks: expected integer from 0 to"),
    "editor, 256 blocks": (expression_editor, EDITOR | {"blocks": 256}, "does not fit Generator"),
    "editor, 4,096 channels": (expression_editor, EDITOR | {"width": 4096, "kernel": 63}, "does not fit Generator"),
    "editor, a kernel of 10^6": (expression_editor, EDITOR | {"kernel": 10**6 + 1}, "kernel: expected integer from 3"),
    "editor, an even kernel": (expression_editor, EDITOR | {"kernel": 4}, "kernel: 4 is even"),
    "editor, no space": (expression_editor, {"channels": "RGB"}, "space is missing"),
    "editor, options of text": (expression_editor, EDITOR | {"blocks": "six"}, "blocks: expected integer"),
    "vae_gan, 10^6 pixels": (vae_gan, VAE_GAN | {"size": 10**6}, "size is 1000000"),
    "vae_gan, width 10^6": (vae_gan, VAE_GAN | {"width": 10**6}, "width: expected integer from 8 to 128"),
    "vae_gan, latent 1,024": (vae_gan, VAE_GAN | {"latent": 1024}, "does not fit VaeGan"),
    "vae_gan, half a latent": (vae_gan, VAE_GAN | {"latent": 6.5}, "latent: expected integer"),
}
WRITERS = {gan: tiny_weights.gan, expression_editor: tiny_weights.expression_editor, vae_gan: tiny_weights.vae_gan}


@pytest.mark.parametrize("family, options, message", OPTIONS.values(), ids=OPTIONS)
def test_options_of_no_such_network_are_refused_without_its_memory(family, options, message, tmp_path, capsys):
    uri = WRITERS[family](tmp_path)
    card = tmp_path / "model.card.yaml"
    card.write_text(yaml.safe_dump(yaml.safe_load(card.read_text()) | {"options": options}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    crop = {"crop": "whole"} if family is expression_editor else {}
    said = refusal(lambda: family.build(family.Config(weights=uri, **crop)), capsys)
    assert message in said and "generator.weights" in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("kind", [*SPECIAL_FILES, "garbage", "2 TB", "nothing"])
@pytest.mark.parametrize("name", sorted(SHA256))
def test_weights_of_the_detector_that_are_none_are_named(name, kind, tmp_path, capsys):
    for other in SHA256:
        (tmp_path / other).write_bytes(b"x")
    path = tmp_path / name
    path.unlink()
    if kind in SPECIAL_FILES:
        SPECIAL_FILES[kind](path)
    elif kind != "nothing":
        path.write_bytes(b"garbage")
        os.truncate(path, 2 * 10**12 if kind == "2 TB" else 7)
    assert str(tmp_path) in refusal(lambda: Detector(tmp_path), capsys)


SMALL = CodeFormerConfig(size=64, width=32, multiples=(1, 2), codes=8, code_width=8, dim=8, heads=1, layers=1)


@pytest.mark.parametrize("kind", [*SPECIAL_FILES, "garbage", "other tensors", "nothing"])
def test_weights_of_the_restorer_that_are_none_are_named(kind, tmp_path, capsys):
    path = tmp_path / "codeformer.pth"
    if kind in SPECIAL_FILES:
        SPECIAL_FILES[kind](path)
    elif kind != "nothing":
        path.write_bytes(b"garbage" if kind == "garbage" else torch_file({"a": 1}))
    said = refusal(lambda: Restorer(RestoreConfig(weights=str(path), network=SMALL)), capsys)
    assert said.startswith("restore.weights") and str(path) in said
