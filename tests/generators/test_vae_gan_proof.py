"""On drawn faces, whose labels are exact: what a VAE-GAN gives back and varies shows the expression that it should."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from synthfer import classifiers, config, generators
from synthfer.classifiers.network import Classifier
from synthfer.expressions import EXPRESSIONS
from synthfer.generators import Faces
from synthfer.generators.vae_gan.generator import VaeGanGenerator
from synthfer.sample import Row
from synthfer.sources.avatars import draw, sample_attributes
from synthfer.store import open_store
from synthfer.training.experiment import build_task
from synthfer.training.runs import Run
from synthfer.training.settings import TaskConfig
from synthfer.training.trainer import Trainer
from synthfer.training.training_batches import TrainingBatches
from synthfer.training.world import World

TRAINED, HELD = 2800, 140
WORDS = ("task=vae_gan", "task.width=8", "batch=32", "steps=4000", "validate_every=1000")
KEEPS = {"noise", "interpolate", "style"}


def faces(first: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawn faces uint8 (n, 48, 48, 3), the expressions in turn, and their labels."""
    labels = np.arange(number) % 7
    drawn = [draw(sample_attributes(first + i, EXPRESSIONS[label]), 48) for i, label in enumerate(labels)]
    return np.stack(drawn), labels


@pytest.fixture(scope="module")
def judge() -> Classifier:
    """A classifier that has learned from other drawn faces than the VAE-GAN."""
    pictures, labels = faces(10_000_000, 4200)
    chance = np.random.default_rng(0)
    torch.manual_seed(1)
    model, epochs, batch = classifiers.build("small"), 9, 64
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = epochs * (len(labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for _ in range(steps):
        rows = chance.choice(len(labels), batch, replace=False)
        images = torch.from_numpy(pictures[rows]).permute(0, 3, 1, 2)
        images = torch.roll(images, tuple(chance.integers(-2, 3, 2).tolist()), (2, 3))
        loss = F.cross_entropy(model(images).logits, torch.from_numpy(labels[rows]), label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def agreement(judge: Classifier, pictures: np.ndarray, labels: np.ndarray) -> float:
    with torch.inference_mode():
        found = judge(torch.from_numpy(pictures).permute(0, 3, 1, 2)).logits.argmax(1).numpy()
    return float((found == labels).mean())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[VaeGanGenerator, dict[str, float]]:
    """The generator after a training of some minutes on one core, and its last validation."""
    folder = tmp_path_factory.mktemp("vae_gan")
    words = config.load(TaskConfig, ("out=x", "data.faces=x", *WORDS))
    pictures, labels = faces(0, TRAINED + HELD)
    rows = np.arange(len(labels))
    batches = TrainingBatches.of_arrays(
        pictures.transpose(0, 3, 1, 2).copy(), labels, rows[:TRAINED], rows[TRAINED:], words.batch, seed=0
    )
    run = Run(name="run", seed=0, steps=words.steps, epoch=TRAINED // words.batch, sources=("faces",))
    task = build_task(words, run)
    trainer = Trainer(words, run, batches, task, World())
    trainer.fit(open_store(str(folder / "states")), lambda message: None)
    path = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in task.weights().items()}, path)
    path.with_suffix(".card.yaml").write_text(task.card().to_yaml())
    made = generators.build("vae_gan", weights=str(path), device="cpu", batch_size=70)
    assert isinstance(made, VaeGanGenerator)
    return made, trainer.progress.history[-1]["validation"]


def made(generator: VaeGanGenerator, operation: str, *numbers: float) -> tuple[np.ndarray, np.ndarray]:
    """Pictures by an operation on 210 of the faces that it was trained on, and what they should show."""
    pictures, source = faces(0, 420)
    wanted = source if operation in KEEPS | {"tail"} else (source + 1 + np.arange(420) // 7 % 6) % 7
    own = () if operation in KEEPS | {"tail"} else (source,)
    rows: list[Row] = []
    given: list[Faces] = []
    for i in range(210):
        code = (*numbers, *(float(labels[i]) for labels in own))
        rows.append(Row(index=i, label=int(wanted[i]), seed=i, operation=operation, code=code))
        of = {"tail": (), "interpolate": (i, i + 210), "style": (i, i + 210)}.get(operation, (i,))
        given.append(tuple(pictures[k] for k in of))
    return _made(generator, rows, given), wanted[:210]


def _made(generator: VaeGanGenerator, rows: Sequence[Row], given: Sequence[Faces]) -> np.ndarray:
    size = generator.batch_size
    parts = [generator.make(rows[i : i + size], given[i : i + size]) for i in range(0, len(rows), size)]
    return np.stack([np.asarray(picture) for part in parts for picture in part])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_variations_show_the_expression_that_they_should(
    judge: Classifier, trained: tuple[VaeGanGenerator, dict[str, float]], tmp_path: Path
) -> None:
    generator, validation = trained
    real, labels = faces(20_000_000, 420)
    told = {"real faces": agreement(judge, real, labels)}
    asked = [("noise", s) for s in (0.0, 0.5, 1.0, 1.5)] + [("interpolate", 0.25), ("interpolate", 0.5), ("style",)]
    asked += [("recondition",), ("direction", 1.0), ("tail", 1.0)]
    for operation, *numbers in asked:
        told[" ".join([operation, *map(str, numbers)])] = agreement(judge, *made(generator, operation, *numbers))
    print(f"{validation['psnr']:.2f} dB, {validation['kl']:.0f} nats;", {k: round(v, 3) for k, v in told.items()})
    assert told["real faces"] > 0.95  # else the judge is none
    assert validation["psnr"] > 18
    for name, share in told.items():
        if name.split()[0] in KEEPS:
            assert share >= 0.85, name
