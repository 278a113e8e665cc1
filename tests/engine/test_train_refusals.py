"""Wrong input to the training job is refused before Ray is started, and nothing is written to `out`."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from synthfer import classifiers, config
from synthfer.classifiers import checkpoints
from synthfer.cli import Invocation
from synthfer.engine.train import TrainJob, train
from synthfer.schema import ConfigError
from tests.training.classifier_trainings import FAST, data_at


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return data_at(tmp_path_factory.mktemp("data"), number=42)


def refused(uri: str, out: Path, *words: str) -> str:
    job = config.load(TrainJob, (f"data={{faces: {uri}}}", f"out={out}", *FAST, *words))
    with pytest.raises(ConfigError) as caught:
        train(job, Invocation(Console(file=io.StringIO()), Console(file=io.StringIO())))
    assert not (out / "experiment.json").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("augment.erase_area=[0.3, 0.1]", "augment.erase=1"), "erase_area"),
        (("optimizer.name=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"), "nesterov"),
        (("batch=8", "engine.workers=5"), "batch=8 leaves less than two rows for each of 5 workers"),
        (("engine.workers=3", "engine.max_workers=2"), "engine.max_workers: 2 is less than engine.workers=3"),
        (("log.mlflow=carrier-pigeon://x",), "log.mlflow"),
    ],
)
def test_options_that_cannot_be(words, told, uri, tmp_path):
    assert told in refused(uri, tmp_path / "exp", *words)


def test_a_place_that_holds_something_else(uri):
    assert "is a dataset or a view" in refused(uri, Path(uri))


@pytest.mark.parametrize("known", [False, True])
def test_weights_to_begin_with_say_what_they_have_learned_from(known, uri, tmp_path):
    model = classifiers.build("small", channels=[4, 8], spec=classifiers.InputSpec(size=16))
    (tmp_path / "init").mkdir()
    for name in ("one", "two")[: 1 + known]:
        checkpoints.save(
            model, tmp_path / "init" / f"{name}.safetensors", trained_on=["msceleb:train"] if known else []
        )
    told = refused(uri, tmp_path / "exp", f"init={tmp_path}/init")
    assert ("there are several checkpoints" if known else "does not say what the weights were trained on") in told
