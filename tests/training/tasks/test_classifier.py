"""A trainer of classifiers: equal after a kill, equal on two ranks, equal to a loop by hand; stops where it should."""

import json
from dataclasses import replace

import pytest
import torch
import yaml

from synthfer.classifiers import checkpoints
from synthfer.classifiers.training_fingerprint import TrainingFingerprint
from synthfer.store import open_store
from synthfer.training import checkpoint, result
from synthfer.training import trainer as trainers
from synthfer.training.aux_batchnorm import without_aux
from synthfer.training.errors import Interrupted, NotFinite
from synthfer.training.initial_weights import build_classifier
from synthfer.training.runs import Run
from synthfer.training.trainer import Trainer
from synthfer.training.world import World
from tests.training.classifier_trainings import FAST, batches_of, config_of, data_at, on_two_ranks, trainer_of


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return data_at(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    return data_at(tmp_path_factory.mktemp("data"), "made", first=84, number=42)


def run_of(config, **changes) -> Run:
    return Run(**{"name": "run", "seed": 0, "steps": config.steps, "epoch": 4, "sources": tuple(config.data)} | changes)


def quiet(message) -> None:
    pass


def fitted(config, run, store, world=None) -> Trainer:
    _, batches = batches_of(config, run)
    trainer = trainer_of(config, run, batches, world)
    trainer.fit(store, quiet)
    return trainer


KINDS = {
    "plain": (),
    "sgd": ("optimizer.name=sgd", "optimizer.lr=0.01", "ema=0", "schedule.name=plateau", "schedule.patience=0"),
    "sam": ("optimizer.sam_rho=0.05", "loss.name=focal"),
    "auxbn": ("aux_batchnorm=true", "loss.intra=0.1", "blend.mixup=0", "loss.logit_adjustment=1"),
    "ldam": ("loss.name=ldam", "loss.class_weights=class_balanced", "loss.reweight_from=0.5", "loss.smoothing=0"),
    "blend": ("blend.mixup=0.2", "blend.cutmix=1", "sampler_power=0.5", "precision=bf16", "channels_last=true"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_killed_goes_on_to_the_same_weights(kind, uri, made, tmp_path):
    config = config_of(
        f"data={{faces: {uri}, made: {made}}}", "synthetic=[made]", f"out={tmp_path}", *FAST, *KINDS[kind]
    )
    run = run_of(config, shares={"faces": 0.75, "made": 0.25}, power=config.sampler_power)
    whole = fitted(config, run, open_store(str(tmp_path / "whole")))
    _, batches = batches_of(config, run)
    store = open_store(str(tmp_path / "killed"))

    class Killed(Exception):
        pass

    def kill(message):
        if message["kind"] == "validation" and message["step"] == 4:
            raise Killed

    with pytest.raises(Killed):
        trainer_of(config, run, batches).fit(store, kill)
    torch.manual_seed(12345)  # what the process did before does not matter
    again = trainer_of(config, run, batches)
    again.resume(store)
    assert again.progress.step == 4
    again.fit(store, quiet)
    assert [r["step"] for r in again.progress.history] == [4, 8, 12]
    assert again.progress == whole.progress
    theirs, ours = whole.task.kept.state_dict(), again.task.kept.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[k], ours[k]) for k in theirs)


def leaving_when_asked(time: int):
    """What says, from so many times on, that the machine is about to be taken away."""
    asked = iter(range(1, 100))
    return lambda: next(asked) >= time


@pytest.mark.parametrize(("kind", "time", "kept"), [*((kind, 3, [4, 7]) for kind in KINDS), ("plain", 1, [3])])
def test_a_run_whose_machine_is_taken_away_loses_no_step(kind, time, kept, uri, made, tmp_path, monkeypatch):
    """Between two validations, or before the first one: nothing is lost, and the next life comes to the same."""
    words = (f"data={{faces: {uri}, made: {made}}}", "synthetic=[made]", f"out={tmp_path}", *FAST, *KINDS[kind])
    config = config_of(*words)
    run, store = run_of(config), open_store(str(tmp_path / "left"))
    whole = fitted(config, run, open_store(str(tmp_path / "whole")))
    monkeypatch.setattr(trainers, "_WINDOW", 3)
    with pytest.raises(Interrupted, match=f"run/seed-0: after step {kept[-1]}"):
        fitted(config, run, store, World(draining=leaving_when_asked(time)))
    assert checkpoint.steps(store, run.key) == kept
    again = fitted(config, run, store)
    assert again.progress == whole.progress
    theirs, ours = whole.task.kept.state_dict(), again.task.kept.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[k], ours[k]) for k in theirs)


def test_a_run_that_is_asked_to_leave_when_it_is_done_is_done(uri, tmp_path):
    config = config_of(f"data={{faces: {uri}}}", f"out={tmp_path}", *FAST)
    trainer = fitted(config, run_of(config), open_store(str(tmp_path)), World(draining=leaving_when_asked(3)))
    assert trainer.progress.step == 12  # it is asked after each window, and the third one ends with the run


def test_a_checkpoint_is_what_it_was(uri, tmp_path):
    config = config_of(f"data={{faces: {uri}}}", f"out={tmp_path}", *FAST)
    trainer = fitted(config, run_of(config), open_store(str(tmp_path / "run")))
    modules = {name: module.state_dict() for name, module in trainer.task.modules.items()}
    assert modules.keys() == {"network", "average"}
    body = checkpoint.pack(trainer.progress, modules, {"network": trainer.task.optimizer.state_dict()})
    progress, back, optimizers = checkpoint.unpack(body)
    optimizer = optimizers["network"]
    assert progress == trainer.progress
    assert all(torch.equal(back[name][k], v) for name, state in modules.items() for k, v in state.items())
    ours = trainer.task.optimizer.state_dict()
    assert optimizer["param_groups"] == json.loads(json.dumps(ours["param_groups"]))
    assert all(torch.equal(optimizer["state"][i][k], v) for i, slot in ours["state"].items() for k, v in slot.items())


def by_hand(config, run, batches) -> dict[str, torch.Tensor]:
    """The same steps as anybody would write them with torch alone: no augmentation, the mean of the cross-entropy."""
    model = build_classifier(config, run, None)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.optimizer.lr, momentum=0.9)
    for step in range(config.steps):
        rows = batches.at(step)
        logits, _ = model(torch.from_numpy(batches.pixels[rows]))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(batches.labels[rows])).backward()
        optimizer.step()
    return model.state_dict()


PLAIN = (
    "classifier=tests.training.plain_network", "batch=15", "steps=5", "validate_every=5", "augment.flip=0",
    "augment.shift=0", "loss.smoothing=0", "optimizer.name=sgd", "optimizer.lr=0.05", "optimizer.weight_decay=0",
    "optimizer.clip=0", "schedule.name=constant", "schedule.warmup=0", "ema=0",
)  # fmt: skip


def test_steps_are_those_of_a_loop_by_hand(uri, tmp_path):
    config = config_of(f"data={{faces: {uri}}}", f"out={tmp_path}", *PLAIN)
    run = run_of(config)
    _, batches = batches_of(config, run)
    trainer = trainer_of(config, run, batches)
    trainer.fit(open_store(str(tmp_path / "run")), quiet)
    for name, value in by_hand(config, run, batches).items():
        torch.testing.assert_close(trainer.task.network.state_dict()[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("extra", [("augment.rotate=10", "augment.flip=0.5", "augment.erase=0.5", "patience=9")])
def test_two_ranks_make_the_steps_of_one(extra, uri, tmp_path):
    """A batch of 15 gives one rank a row more than the other, and 9 validation rows do too: none counts twice."""
    words = (f"data={{faces: {uri}}}", f"out={tmp_path}", *PLAIN, *extra)
    config = config_of(*words)
    one = fitted(config, run_of(config), open_store(str(tmp_path / "one")))
    on_two_ranks(config, run_of(config), tmp_path)
    found = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in one.task.network.state_dict().items():
        assert torch.equal(found[0][0][name], found[1][0][name])
        torch.testing.assert_close(found[0][0][name], value, rtol=1e-5, atol=1e-7)
    mine, theirs = one.progress.history[-1], found[0][1][-1]
    assert {k: mine[k] for k in ("accuracy", "macro_f1")} == {k: theirs[k] for k in ("accuracy", "macro_f1")}
    assert theirs["nll"] == pytest.approx(mine["nll"], abs=1e-6) and theirs["loss"] == pytest.approx(
        mine["loss"], abs=1e-6
    )


def sharpness_aware_by_hand(config, run, batches) -> dict[str, torch.Tensor]:
    """Two ranks of m-SAM in one process: each climbs by its own gradient, the step takes the mean of both."""
    model = build_classifier(config, run, None)
    for step in range(config.steps):
        before = [p.detach().clone() for p in model.parameters()]
        total = [torch.zeros_like(p) for p in before]
        for rank in (0, 1):
            rows = batches.at(step)[rank::2]
            images, labels = torch.from_numpy(batches.pixels[rows]), torch.from_numpy(batches.labels[rows])

            def gradients(images=images, labels=labels):
                loss = torch.nn.functional.cross_entropy(model(images).logits, labels, reduction="sum") / config.batch
                return torch.autograd.grad(loss, list(model.parameters()))

            own = gradients()
            length = torch.sqrt(sum((g**2).sum() for g in own))
            with torch.no_grad():
                for p, g in zip(model.parameters(), own, strict=True):
                    p.add_(g, alpha=float(config.optimizer.sam_rho / length))
            total = [a + g for a, g in zip(total, gradients(), strict=True)]
            with torch.no_grad():
                for p, old in zip(model.parameters(), before, strict=True):
                    p.copy_(old)
        with torch.no_grad():
            for p, g in zip(model.parameters(), total, strict=True):
                p.sub_(g, alpha=config.optimizer.lr)
    return model.state_dict()


def test_sharpness_aware_ranks_climb_each_by_its_own_gradient(uri, tmp_path):
    words = (f"data={{faces: {uri}}}", f"out={tmp_path}", *PLAIN, "optimizer.sam_rho=0.5", "optimizer.momentum=0")
    config = config_of(*words)
    _, batches = batches_of(config, run_of(config))
    on_two_ranks(config, run_of(config), tmp_path)
    found, _ = torch.load(tmp_path / "rank-0.pt", weights_only=True)
    for name, value in sharpness_aware_by_hand(config, run_of(config), batches).items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


def test_a_loss_that_is_no_number_names_the_step_and_its_samples(uri, tmp_path):
    config = config_of(f"data={{faces: {uri}}}", f"out={tmp_path}", *FAST, "optimizer.lr=1e30", "optimizer.clip=0")
    run = run_of(config)
    _, batches = batches_of(config, run)
    store = open_store(str(tmp_path / "run"))
    with pytest.raises(NotFinite, match=r"run/seed-0: the loss is (nan|inf) at step (\d+)") as caught:
        trainer_of(config, run, batches).fit(store, quiet)
    step = int(str(caught.value).partition("step ")[2].partition(".")[0])
    assert 0 < step < 4 and all(batches.ids[row].as_py() in str(caught.value) for row in batches.at(step)[:8].tolist())
    assert not checkpoint.steps(store, run.key)


def test_training_stops_where_nothing_gets_better(uri, tmp_path):
    config = config_of(f"data={{faces: {uri}}}", f"out={tmp_path}", *FAST, "optimizer.lr=0", "patience=1")
    trainer = fitted(config, run_of(config), open_store(str(tmp_path / "run")))
    assert [record["step"] for record in trainer.progress.history] == [4, 8]
    assert trainer.best["step"] == 4


def test_what_a_run_leaves_is_a_plain_checkpoint_with_its_card(uri, made, tmp_path):
    words = ("synthetic=[made]", "aux_batchnorm=true", "ancestors=[laion:train]", *FAST)
    config = config_of(f"data={{faces: {uri}, made: {made}}}", f"out={tmp_path}", *words)
    run, store = run_of(config), open_store(str(tmp_path / "exp"))
    data, batches = batches_of(config, run)
    trainer = trainer_of(config, run, batches)
    trainer.fit(store, quiet)
    assert not result.is_done(store, run)
    best = checkpoint.unpack(store.get(checkpoint.key(run.key, trainer.best["step"])))[1]["average"]
    result.publish(store, trainer, data)
    assert result.is_done(store, run) and not checkpoint.steps(store, run.key)
    model = checkpoints.restore(tmp_path / "exp" / run.key / result.MODEL)
    kept = without_aux(best)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())
    card = yaml.safe_load(store.get(f"{run.key}/{result.CARD}"))
    assert card["selection"] == "validation"
    assert card["trained_on"] == ["faces:train", "laion:train", "made:train"] and card["ancestors"] == ["laion:train"]
    assert card["training"]["data"]["sources"][0]["hash"] == data.sources[0].dataset_ref.hash
    seen = TrainingFingerprint.from_bytes(store.get(f"{run.key}/{result.SEEN}"))
    used = [role in ("train", "val") for role in data.rows["role"].to_pylist()]
    assert seen.contains(data.rows["sample_id"].to_pylist()).tolist() == used


def test_a_run_that_begins_with_another_inherits_its_weights_and_what_it_saw(uri, made, tmp_path):
    config = config_of(f"data={{faces: {uri}, made: {made}}}", f"out={tmp_path}", "synthetic=[made]", *FAST)
    store = open_store(str(tmp_path / "exp"))
    first = run_of(config, name="pretrained", sources=("made",))
    data, batches = batches_of(config, first)
    trainer = trainer_of(config, first, batches)
    trainer.fit(store, quiet)
    result.publish(store, trainer, data)
    second = run_of(config, name="finetuned", sources=("faces",), begins_with="pretrained")
    initial = result.weights_of_run(store, second, config.classifier.name)
    before = checkpoints.restore(tmp_path / "exp/pretrained/seed-0" / result.MODEL).state_dict()
    assert all(torch.equal(before[k], v) for k, v in build_classifier(config, second, initial).state_dict().items())
    _, batches = batches_of(config, second)
    tuned = trainer_of(config, second, batches, initial=initial)
    tuned.fit(store, quiet)
    result.publish(store, tuned, data, initial)
    seen = TrainingFingerprint.from_bytes(store.get(f"{second.key}/{result.SEEN}"))
    assert seen.contains(data.rows["sample_id"].to_pylist()).all()
    assert "made:train" in yaml.safe_load(store.get(f"{second.key}/{result.CARD}"))["trained_on"]
    third = run_of(config, name="doubtful", sources=("faces",))
    initial = replace(initial, selection="test", input=replace(initial.input, channels="BGR", mean=(0.1, 0.2, 0.3)))
    _, batches = batches_of(config, third)
    doubtful = trainer_of(config, third, batches, initial=initial)
    doubtful.fit(store, quiet)
    result.publish(store, doubtful, data, initial)
    card = yaml.safe_load(store.get(f"{third.key}/{result.CARD}"))
    assert card["selection"] == "test"
    assert card["input"]["channels"] == "BGR" and card["input"]["mean"] == [0.1, 0.2, 0.3]
    assert checkpoints.restore(tmp_path / "exp" / third.key / result.MODEL).input == initial.input


@pytest.mark.parametrize("sources", [("faces",), ("made",)])
def test_batch_norms_are_kept_apart_only_where_there_are_both_kinds(sources, uri, made, tmp_path):
    """Else the norms that are kept would be those that saw no row."""
    words = (f"data={{faces: {uri}, made: {made}}}", f"out={tmp_path}", "synthetic=[made]", *FAST)
    config, same = config_of(*words, "aux_batchnorm=true"), config_of(*words)
    run = run_of(config, sources=sources)
    one, other = (fitted(c, run, open_store(str(tmp_path / str(c.aux_batchnorm)))) for c in (config, same))
    theirs = other.task.network.state_dict()
    assert theirs.keys() == one.task.network.state_dict().keys()
    assert all(torch.equal(value, theirs[name]) for name, value in one.task.network.state_dict().items())


def test_weights_that_answer_with_no_number_name_the_run(uri, tmp_path):
    config = config_of(f"data={{faces: {uri}}}", f"out={tmp_path}", *FAST, "steps=1", "optimizer.lr=1e38")
    with pytest.raises(NotFinite, match="run/seed-0: the network's logits on validation data are NaN or infinite"):
        fitted(config, run_of(config), open_store(str(tmp_path / "run")))
