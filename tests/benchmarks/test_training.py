"""The training benchmark in miniature: every part gives finite figures, and ours and the plain loop do equal work."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from synthfer import images
from synthfer.benchmarks import benchmark_data, plain_loop, training
from synthfer.benchmarks.flops import flops_per_image
from synthfer.classifiers import small
from synthfer.cli import Invocation
from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.schema import ConfigError
from synthfer.store import Dataset
from synthfer.training.runs import Run
from synthfer.training.settings import AugmentConfig, TrainConfig

TINY = ("classifier.channels=[4,8]", "size=16", "batch=16", "steps=40", "rounds=2", "pictures=64", "side=24")


def config_of(*words: str) -> training.TrainingBenchmark:
    return load(training.TrainingBenchmark, [*TINY, *words])


def measured(part: str, *words: str) -> dict:
    """What a part tells, after a look at every number in it."""
    invocation = Invocation(Console(file=io.StringIO()), Console(file=io.StringIO()))
    told = dict(training.measure(config_of(f"parts=[{part}]", *words), invocation).summary)
    assert list(told) == ["conditions", part]
    values = list(numbers(told[part]))
    assert values
    assert all(math.isfinite(value) and value > 0 for value in values)
    return told[part]


def numbers(told):
    if isinstance(told, dict):
        told = list(told.values())
    if isinstance(told, list):
        for one in told:
            yield from numbers(one)
    elif not isinstance(told, str):
        yield told


@pytest.mark.slow
def test_steps_of_ours_and_of_the_plain_loop_train_as_many_pictures(ray_session):
    told = measured("steps", "workers=[2]")
    compared = told["2_workers"]
    assert compared["ours_pictures"] == compared["plain_pictures"] == 2 * 40 * 16
    rates = [compared[f"{name}_images_per_s"] for name in ("ours", "plain")]
    assert [len(turns) for turns in rates] == [2, 2]
    assert compared["ours_to_plain"] == pytest.approx(np.median(np.divide(*rates)), abs=1e-4)
    assert compared["device_busy"] < 1
    done = told["flops_per_image"] * np.median(rates[0]) / 2
    assert compared["flops_per_s_of_each"] == pytest.approx(done, rel=1e-6)


def test_more_workers_than_devices_are_refused(ray_session):
    with pytest.raises(ConfigError, match="workers: there are 3"):
        measured("steps", "workers=[1,64]")


def plain_task(folder: Path) -> plain_loop.Task:
    """Forty pictures, black ones of class 0 and white ones of class 6."""
    labels = np.arange(40) % 2 * 6
    pixels = np.zeros((40, 3, 16, 16), np.uint8)
    pixels[labels == 6] = 255
    for name, array in {"pixels": pixels, "labels": labels}.items():
        np.save(folder / f"{name}.npy", array)
    return plain_loop.Task(
        config=load(TrainConfig, ["out=x", "data={a: b}", "batch=16", "size=16", "classifier.channels=[4,8]"]),
        run=Run(name="", seed=0, steps=40, epoch=40, sources=()),
        pixels=folder / "pixels.npy",
        labels=folder / "labels.npy",
        world=1,
        warmup=20,
        niceness=0,
    )


def test_the_plain_loop_learns(tmp_path):
    task = plain_task(tmp_path)
    pixels, labels = (torch.from_numpy(np.load(path)) for path in (task.pixels, task.labels))
    model, optimizer = plain_loop.initial_state(task, torch.device("cpu"))
    padded = torch.nn.functional.pad(pixels, [4] * 4, value=0)
    pictures, rate = plain_loop.steps(task, 0, model, optimizer, padded, labels)
    assert pictures == 40 * 16
    assert rate > 0
    model.eval()
    assert (model(pixels).logits.argmax(1) == labels).all()


def test_what_fails_in_a_process_of_the_plain_loop_is_raised(tmp_path):
    task = plain_task(tmp_path)
    task.labels.unlink()
    with pytest.raises(RuntimeError, match=r"labels\.npy"), plain_loop.processes(task, tmp_path):
        pass


def test_the_input_pipeline_alone():
    told = measured("input")
    assert {len(told["decode"][name]) for name in ("ours", "plain", "same_functions")} == {2}
    assert {len(told["batch"][name]) for name in ("ours", "network")} == {2}
    assert told["batch"]["device_busy"] < 1


def test_scoring_in_one_pass():
    told = measured("evaluation")
    assert told["pictures"] == 128
    assert len(told["one_pass_s"]) == len(told["separate_passes_s"]) == 2


def test_one_pass_and_separate_passes_give_the_same_answers(tmp_path):
    config = config_of()
    uri = benchmark_data.seal(tmp_path / "test", benchmark_data.noise(20, 24), "test")
    models = {f"seed-{seed}": training.network(config, seed) for seed in range(2)}
    (together,) = training.score(models, [uri])
    for name, model in models.items():
        (alone,) = training.score({name: model}, [uri])
        for key, probs in alone.probs.items():
            assert np.array_equal(probs, together.probs[key])
            assert probs.shape == (20, len(EXPRESSIONS))


def test_operations_of_a_small_network_are_those_counted_by_hand():
    """Forward: each product once. Backward: once for the weights, and once for the maps but in the first layer."""
    model = small.build(small.Config(channels=(4,)))
    model.set_input(small.INPUT)
    down, conv, head = 24 * 24 * 4 * 27, 24 * 24 * 4 * 36, 4 * 7
    assert flops_per_image(model) == 2 * (2 * down + 3 * conv + 3 * head)
    assert measured("flops", "networks=[small]") == {"small": 48_027_600}


def test_the_plain_loop_shifts_and_mirrors_as_ours_may():
    """Every picture that comes out is one of the shifts of the one that went in, mirrored or not."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
    padded = np.pad(pixels, [(0, 0), (0, 0), (1, 1), (1, 1)], "edge")
    rows = torch.tensor([0, 1] * 200)
    config = AugmentConfig(shift=1, flip=0.5)
    made = plain_loop.augmented(torch.from_numpy(padded), rows, config, torch.Generator().manual_seed(0)).numpy()
    for row in (0, 1):
        windows = [padded[row, :, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
        possible = {picture.tobytes() for window in windows for picture in (window, window[:, :, ::-1])}
        assert {picture.tobytes() for picture in made[row::2]} == possible


def test_made_datasets_hold_the_pictures_they_were_given(tmp_path):
    pictures = benchmark_data.faces(70, 24)
    assert len({picture.tobytes() for picture in pictures}) == 70
    uri = benchmark_data.seal(tmp_path / "made", pictures, "train", images.ImageConfig(format="png"))
    rows = [row for batch in Dataset(uri).scan(["label", "image"]) for row in batch.to_pylist()]
    assert [row["label"] for row in rows] == [number % 7 for number in range(70)]
    for picture, row in zip(pictures, rows, strict=True):
        assert np.array_equal(images.decode(row["image"]["bytes"]), picture)
