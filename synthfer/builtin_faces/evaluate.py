"""How well a pipeline of drawn faces follows its prompts, measured by a classifier of other drawn faces.

The classifier never saw the pipeline's training faces. It knows drawings and says nothing about photographs.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from synthfer.builtin_faces.autoencoder import reconstruction_psnr
from synthfer.builtin_faces.captions import caption, preset_caption
from synthfer.builtin_faces.train import drawn_faces, load_presets
from synthfer.environment import describe_environment
from synthfer.expressions import EXPRESSIONS
from synthfer.schema import REQUIRED, option
from synthfer.sources.avatars import HAIR_COLORS, HAIR_LENGTH, SKIN_TONES, AvatarAttributes, sample_attributes
from synthfer.tensors import to_floats

# First seeds of drawn faces, far from those of training: to test the autoencoder, to train the classifier, for prompts.
HELD_OUT_SEED, CLASSIFIER_SEED, PROMPT_SEED = 1_000_000, 2_000_000, 3_000_000
PROMPT_SETS = ("preset", "wordings", "held_out")
LENGTHS = tuple(dict.fromkeys(HAIR_LENGTH.values()))
QUESTIONS: dict[str, tuple[int, Callable[[AvatarAttributes], int]]] = {
    "expression": (7, lambda a: EXPRESSIONS.index(a.expression)),
    "skin": (len(SKIN_TONES), lambda a: list(SKIN_TONES).index(a.skin)),
    "hair_color": (len(HAIR_COLORS), lambda a: -1 if a.hair_style == "bald" else list(HAIR_COLORS).index(a.hair_color)),
    "hair_length": (len(LENGTHS), lambda a: LENGTHS.index(a.hair_length)),
    "glasses": (2, lambda a: int(a.glasses is not None)),
}  # the question, the number of answers, the truth (-1: not asked)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What to evaluate, and how."""

    model: str = option(REQUIRED, "folder of the pipeline")
    pictures: int = option(700, "pictures of each set of prompts", low=7, high=1_000_000)
    sets: list[str] = option(list(PROMPT_SETS), "sets of prompts", choices=PROMPT_SETS)
    steps: int | None = option(None, "denoising steps (null: what the model recommends)", low=1, high=1000)
    guidance: float | None = option(None, "guidance scale (null: what the model recommends)", low=0)
    work: str | None = option(None, "folder for drawings and the classifier, which a second run reuses")
    sheet: str | None = option(None, "PNG file for a contact sheet of the first set")


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Agreement of the classifier with the prompts, reconstruction quality and speed, with machine and versions."""
    torch.set_num_threads(1)
    recommended = json.loads((Path(config.model) / "synthfer.json").read_text())
    steps, guidance = config.steps or recommended["steps"], config.guidance or recommended["guidance"]
    folder = Path(config.work or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    classifier, accuracy = get_classifier(folder)
    pipe = load(config.model)
    held = drawn_faces(HELD_OUT_SEED, 1000, folder / "held.npy")[1]
    report: dict[str, Any] = {
        "steps": steps,
        "guidance": guidance,
        "classifier_on_drawn": accuracy,
        "autoencoder_psnr_db": round(reconstruction_psnr(pipe.vae, held), 2),
    }
    for name in config.sets:
        people, prompts = prompt_set(name, config.pictures)
        negative = load_presets()[0].get("negative", "") if name == "preset" else ""
        pictures = generate(pipe, prompts, steps, guidance, negative)
        report[name] = {**agreement(classifier, pictures, people, name != "preset"), "example": prompts[0]}
        if config.sheet and name == config.sets[0]:
            save_sheet(pictures, Path(config.sheet))
    report["images_per_second_one_core"] = speed(pipe, steps, guidance)
    report["bytes"] = sum(f.stat().st_size for f in Path(config.model).rglob("*") if f.is_file())
    return report | {"conditions": describe_environment("torch", "diffusers", "transformers")}


class FaceClassifier(nn.Module):
    """A small convolutional classifier that answers every question of `QUESTIONS` at once."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b, stride in ((3, 24, 1), (24, 48, 2), (48, 64, 2), (64, 96, 2), (96, 128, 2)):
            layers += [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({name: nn.Linear(128 * 16, answers) for name, (answers, _) in QUESTIONS.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(to_floats(images))
        return {name: head(features) for name, head in self.heads.items()}


def get_classifier(folder: Path, number: int = 9000, epochs: int = 6) -> tuple[FaceClassifier, dict[str, float]]:
    """The classifier in `folder`, or one trained now, and its accuracy on 1,000 held-out drawn faces."""
    people, images = drawn_faces(CLASSIFIER_SEED, number, folder / "classifier.npy")
    truth = truths(people)
    torch.manual_seed(1)
    classifier, fit = FaceClassifier(), number - 1000
    if (folder / "classifier.pt").exists():
        classifier.load_state_dict(torch.load(folder / "classifier.pt", weights_only=True))
    else:
        optimiser = torch.optim.AdamW(classifier.parameters(), 2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * (fit // 64))
        for _ in range(epochs):
            for chosen in torch.randperm(fit)[: fit // 64 * 64].split(64):
                answers = classifier(soften(images[chosen].float()))
                losses = [F.cross_entropy(answers[q], truth[q][chosen], ignore_index=-1) for q in QUESTIONS]
                loss = torch.stack(losses).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        torch.save(classifier.state_dict(), folder / "classifier.pt")
    classifier.eval()
    right = correct(classifier, images[fit:], people[fit:])
    return classifier, {q: round(float(np.nanmean(v)), 4) for q, v in right.items()}


def soften(images: Tensor) -> Tensor:
    """Slight blur, noise and shift, so that the classifier learns shapes and not the crispness of a drawing."""
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = torch.lerp(images, blurred, torch.rand(len(images), 1, 1, 1) * 0.8)
    images = images + 6 * torch.rand(len(images), 1, 1, 1) * torch.randn_like(images)
    return images.roll(tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3)).clamp(0, 255)


def truths(people: list[AvatarAttributes]) -> dict[str, Tensor]:
    return {q: torch.tensor([truth(a) for a in people]) for q, (_, truth) in QUESTIONS.items()}


@torch.no_grad()
def correct(classifier: FaceClassifier, images: Tensor, people: list[AvatarAttributes]) -> dict[str, np.ndarray]:
    """Per question, 1 or 0 for each face, nan where the question was not asked."""
    answers = [classifier(part) for part in images.split(100)]
    result = {}
    for q, truth in truths(people).items():
        predicted = torch.cat([a[q] for a in answers]).argmax(1)
        result[q] = np.where(truth < 0, np.nan, (predicted == truth).float().numpy())
    return result


def agreement(
    classifier: FaceClassifier, images: Tensor, people: list[AvatarAttributes], attributes: bool
) -> dict[str, Any]:
    """Shares of pictures whose predicted expression (and attributes) are those of the prompt."""
    right = correct(classifier, images, people)
    labels = np.array([a.expression for a in people])
    result: dict[str, Any] = {"expression": round(float(right["expression"].mean()), 4)}
    result["per_class"] = {e: round(float(right["expression"][labels == e].mean()), 4) for e in EXPRESSIONS}
    if attributes:
        result |= {q: round(float(np.nanmean(right[q])), 4) for q in QUESTIONS if q != "expression"}
    return result


def prompt_set(name: str, n: int) -> tuple[list[AvatarAttributes], list[str]]:
    """`n` persons, expressions in turn, and a prompt each: from the preset, the grammar, or its held-out frames."""
    people: list[AvatarAttributes] = []
    prompts: list[str] = []
    seed = PROMPT_SEED
    while len(people) < n:
        seed += 1
        face = sample_attributes(seed, EXPRESSIONS[len(people) % 7])
        text = (
            preset_caption(face, load_presets()[0], seed)
            if name == "preset"
            else caption(face, seed, name == "held_out", True)
        )
        if text:
            people.append(face)
            prompts.append(text)
    return people, prompts


def load(model: str) -> StableDiffusionPipeline:
    """The folder as float32, without progress bars."""
    pipe = StableDiffusionPipeline.from_pretrained(
        model, torch_dtype=torch.float32, safety_checker=None, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(
    pipe: StableDiffusionPipeline, prompts: list[str], steps: int, guidance: float, negative: str = "", batch: int = 20
) -> Tensor:
    """uint8 (N, 3, 64, 64), one seed a prompt."""
    images = []
    for i in range(0, len(prompts), batch):
        part = prompts[i : i + batch]
        generators = [torch.Generator().manual_seed(i + k) for k in range(len(part))]
        out = pipe(part, negative_prompt=[negative] * len(part), num_inference_steps=steps, guidance_scale=guidance,
                   height=64, width=64, generator=generators, output_type="pt")  # fmt: skip
        images.append(out.images.mul(255).round().to(torch.uint8))
    return torch.cat(images)


def speed(
    pipe: StableDiffusionPipeline, steps: int, guidance: float, batch: int = 20, rounds: int = 4
) -> dict[str, float]:
    """Images a second end to end from ready prompt embeddings: by the wall clock, and by its CPU time."""
    with torch.no_grad():
        text = pipe.encode_prompt(["a happy woman"] * batch, "cpu", 1, True, [""] * batch)
    walls, cpus = [], []
    for _ in range(rounds + 1):
        wall, cpu = time.monotonic(), time.process_time()
        pipe(prompt_embeds=text[0], negative_prompt_embeds=text[1], num_inference_steps=steps, guidance_scale=guidance,
             height=64, width=64, output_type="np")  # fmt: skip
        walls.append(time.monotonic() - wall)
        cpus.append(time.process_time() - cpu)
    rate = {"wall_best": min(walls[1:]), "wall_median": np.median(walls[1:]), "cpu_time_median": np.median(cpus[1:])}
    return {"batch": batch, **{name: round(batch / float(seconds), 2) for name, seconds in rate.items()}}


def save_sheet(images: Tensor, path: Path, columns: int = 14) -> None:
    """A contact sheet of up to twelve rows, one expression a column pair."""
    rows = min(12, len(images) // columns)
    tiles = images[: columns * rows].reshape(rows, columns, 3, 64, 64).permute(0, 3, 1, 4, 2)
    Image.fromarray(tiles.reshape(rows * 64, columns * 64, 3).numpy()).save(path)
