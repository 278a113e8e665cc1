"""The overhead of the generation job around each generator that loads weights, and the time of each step of an edit.

Networks have their published sizes, or those asked for, and random weights: speed does not depend on their values.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import nn

from synthfer import images
from synthfer.benchmarks import benchmark_data
from synthfer.benchmarks.bare_loop import against_bare_loop
from synthfer.checkpoints import Card
from synthfer.cli import Invocation
from synthfer.generators import expression_editor
from synthfer.limits import MAX_BATCH, MAX_NETWORK_SIDE, MAX_WIDTH
from synthfer.planning.faces import open_faces
from synthfer.schema import option
from synthfer.store.image_reader import ImageReader

PARTS = ("expression_editor", "vae_gan", "gan", "edit")


@dataclass(frozen=True, kw_only=True)
class NetworksConfig:
    """How much is measured of the generators that load weights."""

    faces: str | None = option(None, "dataset of the faces that are edited (null: drawn, too small to be detected)")
    images: int = option(
        96, "images of each generator: so many by the job, half before and half after it", low=32, high=1_000_000
    )
    edits: int = option(24, "faces of the part edit", low=1, high=100_000)
    size: int = option(128, "side of the editor's faces in pixels", low=16, high=MAX_NETWORK_SIDE)
    width: int = option(64, "channels of the editor's first layer", low=4, high=MAX_WIDTH)
    restore: str | None = option(None, "codeformer.pth, to time restoration in the part edit, too")
    batch_size: int = option(8, "rows per device call", low=1, high=MAX_BATCH)


def measure(part: str, config: NetworksConfig, invocation: Invocation) -> dict[str, Any]:
    """One of `PARTS`: a generator's job against a bare loop, or the parts of an edit."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        given = config.faces if part in ("expression_editor", "edit") else None  # others need labels
        faces = given or benchmark_data.seal(root / "faces", benchmark_data.faces(config.images, 96), "train")
        return _parts(config, faces, root) if part == "edit" else _job(part, config, faces, root, invocation)


def _job(
    name: str, config: NetworksConfig, faces: str, folder: Path, invocation: Invocation
) -> dict[str, float | list[float]]:
    """The job against a bare loop over the same generator."""
    uri = _saved(name, config, folder)
    asked = {
        "expression_editor": [f"plan.faces={faces}", "plan.by=face", "generator.crop=whole"],
        "vae_gan": [f"plan.faces={faces}"],
        "gan": [],
    }[name]
    total = f"plan.total={config.images}"
    unit = f"plan.unit_size={max(4 * config.batch_size, config.images // 12)}"
    words = [f"generator.name={name}", f"generator.weights={uri}", f"generator.batch_size={config.batch_size}"]
    return against_bare_loop([*words, *asked, total, unit], config.images, invocation)


def _saved(name: str, config: NetworksConfig, folder: Path) -> str:
    """A checkpoint of random weights with its card."""
    from synthfer.generators.expression_editor.networks import Generator, NetworkConfig
    from synthfer.generators.gan.networks import Dcgan
    from synthfer.generators.gan.networks import NetworkConfig as GanNetwork
    from synthfer.generators.vae_gan.networks import NetworkConfig as VaeNetwork
    from synthfer.generators.vae_gan.networks import VaeGan

    editor: dict[str, Any] = {"space": "linear", "size": config.size, "width": config.width, "channels": "BGR"}
    builders: dict[str, tuple[str, dict[str, Any], Callable[[], nn.Module]]] = {
        "expression_editor": ("expression_editor", editor, lambda: Generator(NetworkConfig(**editor))),
        "vae_gan": ("vae_gan", {"size": 64}, lambda: VaeGan(VaeNetwork(size=64))),
        "gan": ("dcgan", {}, lambda: Dcgan(GanNetwork())),
    }
    architecture, options, build = builders[name]
    target = folder / name
    target.mkdir()
    state = {key: value.contiguous() for key, value in build().state_dict().items()}
    safetensors.torch.save_file(state, target / "model.safetensors")
    (target / "model.card.yaml").write_text(Card(architecture=architecture, options=options).to_yaml())
    return str(target / "model.safetensors")


def _parts(config: NetworksConfig, faces: str, folder: Path) -> dict[str, Any]:
    """Milliseconds a face of detection, edit, restoration (where weights are given) and paste, one after another."""
    table = open_faces("faces", faces, ["train"])
    refs = [table.image_ref(number) for number in range(min(config.edits, len(table)))]
    bodies = ImageReader(table.uris).read(refs)
    pictures = [_decoded(bodies[ref]) for ref in refs]
    uri = _saved("expression_editor", config, folder)
    editor = expression_editor.build(expression_editor.Config(weights=uri, batch_size=config.batch_size))
    clocks: dict[str, float] = {}
    with _timed(clocks, "detection"):
        cuts = [editor.detect(picture) for picture in pictures]
    ready = [(picture, cut) for picture, cut in zip(pictures, cuts, strict=True) if cut is not None]
    whole = expression_editor.build(expression_editor.Config(weights=uri, batch_size=config.batch_size, crop="whole"))
    ready = ready or [(picture, cut) for picture in pictures if (cut := whole.detect(picture)) is not None]
    point = np.zeros(2, np.float32)
    edits: list[np.ndarray] = []
    with _timed(clocks, "edit"):
        for start in range(0, len(ready), config.batch_size):
            some = ready[start : start + config.batch_size]
            edits += [
                edit for edit in editor.edit([cut.pixels for _, cut in some], [point] * len(some)) if edit is not None
            ]
    if config.restore:
        from synthfer.faces.restoration import Restorer
        from synthfer.faces.restoration_config import RestoreConfig

        restorer = Restorer(RestoreConfig(weights=config.restore))
        with _timed(clocks, "restoration"):
            restorer.apply(np.stack(edits), list(range(len(edits))))
    with _timed(clocks, "paste"):
        for (picture, cut), edit in zip(ready, edits, strict=True):
            editor.put_back(picture, edit, cut.matrix)
    counts = {"detection": len(pictures)}
    without = cuts.count(None)
    return {
        "faces": len(pictures),
        "found": len(cuts) - without,
        "ms_per_face": {name: round(1000 * spent / counts.get(name, len(ready)), 2) for name, spent in clocks.items()},
    }


def _decoded(body: bytes | None) -> np.ndarray:
    if body is None:
        raise ValueError("faces: a row has no picture; give a dataset of accepted faces")
    return images.decode(body)


@contextmanager
def _timed(clocks: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    clocks[name] = time.perf_counter() - start
