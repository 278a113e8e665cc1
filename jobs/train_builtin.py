"""Make and measure the weights that ship as `builtin:faces`.

    python jobs/train_builtin.py train out=DIR [faces=28000] [autoencoder_steps=3000] [flow_steps=6000] ...
    python jobs/train_builtin.py evaluate model=DIR [n=700] [steps=..] [guidance=..] [sheet=FILE.png]

`train` draws faces, fits the pipeline and writes it; `evaluate` prints JSON. The judge of `evaluate` is a classifier
fitted on drawn faces that the pipeline never saw; it takes no part in training. Needs the extra `avatars`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
import transformers
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn

import synthfer
from synthfer.expressions import EXPRESSIONS
from synthfer.sources.avatars import HAIR_COLORS, HAIR_LENGTH, SKIN_TONES, AvatarAttributes, draw, sample_attributes
from synthfer.training.captions import caption, preset_caption, preset_phrases, silent_captions, vocabulary
from synthfer.training.text_to_image import (
    AutoencoderSettings,
    Flow,
    FlowSettings,
    TextSettings,
    build_autoencoder,
    build_pipeline,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    encode,
    reconstruction_psnr,
    save_half,
    tokenize,
    train_autoencoder,
    train_flow,
    train_text,
)

# Seeds of drawn faces, far apart: what the pipeline learns from, what it is tested on, what the judge learns from.
TRAIN, HELD, JUDGE, PROMPTS = 0, 1_000_000, 2_000_000, 3_000_000
PRESETS = ("portrait", "syntfer")
LENGTHS = tuple(dict.fromkeys(HAIR_LENGTH.values()))
QUESTIONS: dict[str, tuple[int, Callable[[AvatarAttributes], int]]] = {
    "expression": (7, lambda a: EXPRESSIONS.index(a.expression)),
    "skin": (len(SKIN_TONES), lambda a: list(SKIN_TONES).index(a.skin)),
    "hair_color": (len(HAIR_COLORS), lambda a: -1 if a.hair_style == "bald" else list(HAIR_COLORS).index(a.hair_color)),
    "hair_length": (len(LENGTHS), lambda a: LENGTHS.index(a.hair_length)),
    "glasses": (2, lambda a: int(a.glasses is not None)),
}  # the question, the number of answers, the truth (-1: not asked)


def main(arguments: list[str]) -> None:
    """Dispatch `train` or `evaluate` with key=value options."""
    torch.set_num_threads(1)
    commands: dict[str, Callable[..., None]] = {"train": train, "evaluate": evaluate}
    if not arguments or arguments[0] not in commands or any("=" not in a for a in arguments[1:]):
        raise SystemExit(__doc__)
    commands[arguments[0]](**dict(a.split("=", 1) for a in arguments[1:]))


def train(out: str, work: str = "", faces: str = "28000", autoencoder_steps: str = "2400", flow_steps: str = "6000",
          text_steps: str = "700", captions: str = "13", seed: str = "0", steps: str = "10",
          guidance: str = "3.5") -> None:  # fmt: skip
    """Draw, fit the autoencoder, fit the flow, write the pipeline; what is done already is read from `work`."""
    folder = Path(work or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    people, images = drawn_faces(TRAIN, int(faces), folder / "train.npy")
    torch.manual_seed(int(seed))
    vae = build_autoencoder()
    if (folder / "vae").exists():
        vae = type(vae).from_pretrained(folder / "vae")
    else:
        train_in_phases(vae, images, int(autoencoder_steps), int(seed))
        vae.save_pretrained(folder / "vae")
    presets = load_presets()
    tokenizer = build_tokenizer(vocabulary(p for preset in presets for p in preset_phrases(preset)))
    ids = training_ids(tokenizer, people, presets, int(captions), folder / "ids.npy")
    latents = encode(vae, images) * vae.config.scaling_factor
    torch.manual_seed(int(seed))
    settings = FlowSettings(steps=int(flow_steps), seed=int(seed))
    text_encoder = build_text_encoder(tokenizer)
    train_text(text_encoder, ids, spoken(people), TextSettings(steps=int(text_steps), seed=int(seed)), say)
    flow = Flow(build_unet(), text_encoder, settings.ema)

    def checkpoint(step: int) -> None:
        publish(build_pipeline(vae, flow, tokenizer), Path(out), int(steps), float(guidance))
        say(f"wrote {out} after {step} steps")

    nothing = tokenize(tokenizer, silent_captions(400, [p["negative"] for p in presets if p.get("negative")]))
    train_flow(flow, latents, ids, nothing, settings, say, 500, checkpoint)
    checkpoint(int(flow_steps))


def train_in_phases(vae: Any, images: Tensor, total: int, seed: int) -> None:
    """Shapes first, on half of the faces; then colours; then the decoder alone, on latents a little off."""
    train_autoencoder(vae, images[: len(images) // 2], AutoencoderSettings(steps=total, seed=seed), say)
    colour = AutoencoderSettings(steps=total * 2 // 5, rate=1.5e-3, kl=1e-4, colour=3.0, seed=seed + 2)
    train_autoencoder(vae, images, colour, say)
    decoder = AutoencoderSettings(
        steps=total * 5 // 8, rate=1e-3, colour=2.0, decoder_only=True, noise=0.15, seed=seed + 3
    )
    train_autoencoder(vae, images, decoder, say)


def evaluate(model: str, n: str = "700", steps: str = "", guidance: str = "", sheet: str = "", work: str = "",
             sets: str = "preset,wordings,held_out") -> None:  # fmt: skip
    """Print agreement of the judge with the prompts, reconstruction quality and speed as JSON."""
    advice = json.loads((Path(model) / "synthfer.json").read_text())
    count, rate = int(steps or advice["steps"]), float(guidance or advice["guidance"])
    folder = Path(work or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    judge, judge_accuracy = get_judge(folder)
    pipe = load(model)
    held = drawn_faces(HELD, 1000, folder / "held.npy")[1]
    report: dict[str, Any] = {"steps": count, "guidance": rate, "judge_on_drawn": judge_accuracy,
                              "autoencoder_psnr_db": round(reconstruction_psnr(pipe.vae, held), 2)}  # fmt: skip
    pictures = {}
    for name in sets.split(","):
        people, prompts = prompt_set(name, int(n))
        negative = load_presets()[0].get("negative", "") if name == "preset" else ""
        pictures[name] = generate(pipe, prompts, count, rate, negative)
        report[name] = agreement(judge, pictures[name], people, name != "preset")
        report[name]["example"] = prompts[0]
    report["images_per_second_one_core"] = speed(pipe, count, rate)
    report["bytes"] = sum(f.stat().st_size for f in Path(model).rglob("*") if f.is_file())
    report["conditions"] = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__,
                            "diffusers": diffusers.__version__, "transformers": transformers.__version__}  # fmt: skip
    if sheet:
        save_sheet(next(iter(pictures.values())), Path(sheet))
    print(json.dumps(report, indent=1))


def drawn_faces(start: int, number: int, cache: Path) -> tuple[list[AvatarAttributes], Tensor]:
    """Attributes and uint8 (N, 3, 64, 64) pictures of the seeds from `start`; the pictures are kept in `cache`."""
    people = [sample_attributes(seed) for seed in range(start, start + number)]
    if not cache.exists():
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            np.save(cache, np.stack(list(pool.map(draw, people, chunksize=100))))
    return people, torch.from_numpy(np.load(cache)).permute(0, 3, 1, 2).contiguous()


def load_presets() -> list[dict[str, Any]]:
    """The planning presets whose sentences are part of the training mixture."""
    folder = Path(synthfer.__file__).parent / "planning" / "presets"
    return [
        yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in PRESETS if (folder / f"{name}.yaml").exists()
    ]


def training_ids(
    tokenizer: Any, people: list[AvatarAttributes], presets: list[dict[str, Any]], each: int, cache: Path
) -> Tensor:
    """Token ids of `each` captions a face, int16 (N, each, length), from presets, grammar and its full sentences."""
    if not cache.exists():
        texts = [training_caption(face, presets, f"{i}.{k}", k) for i, face in enumerate(people) for k in range(each)]
        parts = [tokenize(tokenizer, texts[i : i + 10_000]).to(torch.int16) for i in range(0, len(texts), 10_000)]
        np.save(cache, torch.cat(parts).reshape(len(people), each, -1).numpy())
    return torch.from_numpy(np.load(cache))


def training_caption(face: AvatarAttributes, presets: list[dict[str, Any]], seed: str, k: int) -> str:
    """The k-th caption of a face: every third from the first preset, the second from the second, two in full."""
    source = 0 if k % 3 == 0 else 1 if k == 1 else len(presets)
    made = preset_caption(face, presets[source], seed) if source < len(presets) else None
    return made or caption(face, seed, full=k >= 10)


def spoken(people: list[AvatarAttributes]) -> Tensor:
    """What captions tell, as answers by number, the expression first; int64 (N, 10)."""
    told = [(a.expression, a.intensity, a.gender, a.age, a.skin, a.hair_color, a.hair_style, a.glasses or "",
             a.facial_hair or "", a.pose) for a in people]  # fmt: skip
    columns = [{word: i for i, word in enumerate(sorted(set(column)))} for column in zip(*told, strict=True)]
    return torch.tensor([[column[word] for column, word in zip(columns, row, strict=True)] for row in told])


def publish(pipe: StableDiffusionPipeline, out: Path, steps: int, guidance: float) -> None:
    """Write the pipeline beside `out`, then put it in its place; a model card that is there already stays."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    save_half(pipe, fresh)
    advice = {"steps": steps, "guidance": guidance, "height": 64, "width": 64}
    (fresh / "synthfer.json").write_text(json.dumps(advice, indent=2) + "\n")
    if (out / "README.md").exists():
        (fresh / "README.md").write_text((out / "README.md").read_text())
    for path in (fresh, *fresh.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    old = out.with_name(f".{out.name}-old")
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    if old.exists():
        for path in sorted(old.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        old.rmdir()


class Judge(nn.Module):
    """A small convolutional classifier that answers every question of `QUESTIONS` at once."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b, stride in ((3, 24, 1), (24, 48, 2), (48, 64, 2), (64, 96, 2), (96, 128, 2)):
            layers += [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({name: nn.Linear(128 * 16, answers) for name, (answers, _) in QUESTIONS.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images.float() / 127.5 - 1)
        return {name: head(features) for name, head in self.heads.items()}


def get_judge(folder: Path, number: int = 9000, epochs: int = 6) -> tuple[Judge, dict[str, float]]:
    """Fit the judge on its own drawn faces, the last 1,000 kept to measure it; read it from `folder` if there."""
    people, images = drawn_faces(JUDGE, number, folder / "judge.npy")
    truth = truths(people)
    torch.manual_seed(1)
    judge, fit = Judge(), number - 1000
    if (folder / "judge.pt").exists():
        judge.load_state_dict(torch.load(folder / "judge.pt", weights_only=True))
    else:
        optimiser = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * (fit // 64))
        for _ in range(epochs):
            for chosen in torch.randperm(fit)[: fit // 64 * 64].split(64):
                answers = judge(soften(images[chosen].float()))
                losses = [F.cross_entropy(answers[q], truth[q][chosen], ignore_index=-1) for q in QUESTIONS]
                loss = torch.stack(losses).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        torch.save(judge.state_dict(), folder / "judge.pt")
    judge.eval()
    right = correct(judge, images[fit:], people[fit:])
    return judge, {q: round(float(np.nanmean(v)), 4) for q, v in right.items()}


def soften(images: Tensor) -> Tensor:
    """Slight blur, noise and shift, so that the judge looks at shapes and not at the crispness of a drawing."""
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = torch.lerp(images, blurred, torch.rand(len(images), 1, 1, 1) * 0.8)
    images = images + 6 * torch.rand(len(images), 1, 1, 1) * torch.randn_like(images)
    return images.roll(tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3)).clamp(0, 255)


def truths(people: list[AvatarAttributes]) -> dict[str, Tensor]:
    return {q: torch.tensor([truth(a) for a in people]) for q, (_, truth) in QUESTIONS.items()}


@torch.no_grad()
def correct(judge: Judge, images: Tensor, people: list[AvatarAttributes]) -> dict[str, np.ndarray]:
    """Per question, 1 or 0 for each face, nan where the question was not asked."""
    answers = [judge(part) for part in images.split(100)]
    result = {}
    for q, truth in truths(people).items():
        said = torch.cat([a[q] for a in answers]).argmax(1)
        result[q] = np.where(truth < 0, np.nan, (said == truth).float().numpy())
    return result


def agreement(judge: Judge, images: Tensor, people: list[AvatarAttributes], attributes: bool) -> dict[str, Any]:
    """Shares of pictures whose judged expression (and attributes) are those of the prompt."""
    right = correct(judge, images, people)
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
    seed = PROMPTS
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


def cpu_name() -> str:
    """What the system calls its processor."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor()


def say(text: str) -> None:
    """One log line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
