"""A trainer of tasks: equal after a kill, equal on two ranks, equal to a loop by hand; stops where it should."""

import numpy as np
import pytest
import torch

from synthfer import images
from synthfer.sample import seed_of
from synthfer.store import open_store
from synthfer.training import checkpoint
from synthfer.training import trainer as trainers
from synthfer.training.batch_rng import BatchRng
from synthfer.training.errors import Interrupted, NotFinite
from synthfer.training.experiment import build_task
from synthfer.training.tasks import Batch
from synthfer.training.trainer import grid_key
from synthfer.training.world import World
from tests.training.task_trainings import (
    ROWS,
    TINY,
    TRAINED,
    Killed,
    check_equal,
    config_of,
    kill_at,
    on_two_ranks,
    pictures,
    quiet,
    run_of,
    states,
    trainer_of,
)

KINDS = {
    "tiny": (*TINY, "sampler_power=0.5", "augment.rotate=10"),
    "vae_gan": ("task=vae_gan", "task.size=32", "task.width=8", "task.r1_every=2", "batch=8", "steps=6",
                "validate_every=2"),
    "expression_editor": ("task=expression_editor", "task.size=16", "task.width=4", "task.blocks=1",
                          "task.critic_width=8", "task.critic_layers=2", "batch=8", "steps=6", "validate_every=2"),
}  # fmt: skip
EXACT = (*TINY, "task.optimizer=sgd", "task.norm=false", "augment.rotate=10")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_killed_goes_on_to_the_same_weights(kind, tmp_path):
    config = config_of(*KINDS[kind])
    whole, store = trainer_of(config), open_store(str(tmp_path / "killed"))
    whole.fit(open_store(str(tmp_path / "whole")), quiet)
    with pytest.raises(Killed):
        trainer_of(config).fit(store, kill_at(config.validate_every))
    torch.manual_seed(12345)  # what the process did before does not matter
    again = trainer_of(config)
    again.fit(store, quiet)
    assert again.progress == whole.progress
    assert [record["step"] for record in again.progress.history] == [config.steps // 3 * k for k in (1, 2, 3)]
    check_equal(states(again), states(whole))
    check_equal(again.task.weights(), whole.task.weights())
    last = grid_key("run/seed-0", config.steps)
    assert store.get(last) == open_store(str(tmp_path / "whole")).get(last)


def test_a_run_whose_machine_is_taken_away_loses_no_step(tmp_path, monkeypatch):
    """Between two validations: nothing is lost, and the next life comes to the same."""
    config, store = config_of(*TINY), open_store(str(tmp_path / "left"))
    whole = trainer_of(config)
    whole.fit(open_store(str(tmp_path / "whole")), quiet)
    monkeypatch.setattr(trainers, "_WINDOW", 2)
    asked = iter([False, False, True])
    with pytest.raises(Interrupted, match="run/seed-0: after step 5"):
        trainer_of(config, World(draining=lambda: next(asked))).fit(store, quiet)
    assert checkpoint.steps(store, "run/seed-0") == [3, 5]
    again = trainer_of(config)
    again.fit(store, quiet)
    assert again.progress == whole.progress
    check_equal(states(again), states(whole))


def by_hand(config) -> dict[str, torch.Tensor]:
    """The same steps without the loop: pictures and labels of the feed, mirrored nowhere, draws by step."""
    trainer = trainer_of(config)
    task = build_task(config, run_of(config))
    task.begin(config.steps)
    for step in range(config.steps):
        rows = trainer.batches.at(step)
        batch = Batch(
            torch.from_numpy(trainer.batches.pixels[rows] / np.float32(127.5) - 1), torch.from_numpy(rows % 7)
        )
        task.step(step, batch, BatchRng(seed_of(0, "draws", step), config.batch, World()))
    return task.maker.state_dict()


def test_steps_are_those_of_a_loop_by_hand(tmp_path):
    config = config_of(*EXACT, "augment.flip=0", "augment.rotate=0")
    trainer = trainer_of(config)
    trainer.fit(open_store(str(tmp_path)), quiet)
    for name, value in by_hand(config).items():
        torch.testing.assert_close(trainer.task.maker.state_dict()[name], value, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict[str, list]]:
    """Trainings of two ranks: one that is exact, and one with statistics that each rank gathers from its own rows."""
    return on_two_ranks(tmp_path_factory.mktemp("two"), exact=EXACT, tiny=TINY)


def test_two_ranks_make_the_steps_of_one(two, tmp_path):
    one = trainer_of(config_of(*EXACT))
    one.fit(open_store(str(tmp_path)), quiet)
    (ours, history), (others, _) = two[0]["exact"][0], two[1]["exact"][0]
    for name, value in states(one).items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7)
        assert name == "kept.mean_picture" or torch.equal(others[name], ours[name])  # the end is the first one's
    for mine, theirs in zip(history, one.progress.history, strict=True):
        assert mine["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
        assert mine["validation"] == pytest.approx(theirs["validation"], rel=1e-5)


def test_two_ranks_go_on_from_a_checkpoint_to_the_same_weights(two):
    for name in ("exact", "tiny"):
        for rank in (0, 1):
            (whole, history), *others = two[rank][name]
            assert len(others) == 2
            for again, told in others:
                check_equal(again, whole)
                assert rank or told == history


def test_a_loss_that_is_no_number_names_step_and_samples(tmp_path):
    config = config_of(*TINY, "task.nan_at=4")
    trainer, store = trainer_of(config), open_store(str(tmp_path))
    with pytest.raises(NotFinite, match=r"run/seed-0: the loss critic is nan at step 4\. Its batch: ") as caught:
        trainer.fit(store, quiet)
    shown = str(caught.value).partition("Its batch: ")[2].partition(" and ")[0].split(", ")
    assert shown == [str(row) for row in trainer.batches.at(4)[:8]]
    assert checkpoint.steps(store, "run/seed-0") == [3]  # what was sound before is kept


def test_validation_that_is_no_number_is_told(tmp_path):
    trainer = trainer_of(config_of(*TINY, "steps=1"))
    with torch.no_grad():
        trainer.task.average.model[0].weight.fill_(torch.nan)
    with pytest.raises(NotFinite, match="error on validation data is NaN or infinite after step 0"):
        trainer.validate()


def test_validation_counts_each_picture_once_however_they_are_cut(tmp_path):
    """Eighty pictures are looked at in two parts that are not alike."""
    trainer = trainer_of(config_of(*TINY, "steps=1"))
    object.__setattr__(trainer.batches, "validation", np.arange(80))
    level = pictures(8)[:80].astype(np.float64).mean() / 127.5 - 1
    assert trainer.validate()["level"] == pytest.approx(level, abs=1e-6)


def test_the_end_sees_every_training_picture_as_it_is(tmp_path):
    trainer = trainer_of(config_of(*TINY))
    trainer.fit(open_store(str(tmp_path)), quiet)
    seen = torch.cat([batch.images for batch in trainer.task.finished])
    labels = torch.cat([batch.labels for batch in trainer.task.finished])
    assert torch.equal(seen, torch.from_numpy(pictures(8)[:TRAINED]).float() / 127.5 - 1)
    assert labels.tolist() == [row % 7 for row in range(TRAINED)]
    assert not any(module.training for module in trainer.task.modules.values())  # as averages always are
    assert trainer.task.weights()["mean_picture"][3] == pytest.approx(seen[labels == 3].mean((0, 2, 3)).numpy())


def test_what_is_told_and_kept(tmp_path):
    config, messages = config_of(*TINY, "steps=50", "validate_every=25"), []
    trainer, store = trainer_of(config), open_store(str(tmp_path))
    trainer.fit(store, messages.append)
    steps = [message for message in messages if message["kind"] == "steps"]
    assert [message["step"] for message in steps] == [20, 25, 45, 50]
    assert all({"critic", "maker", "images_per_s", "device_busy"} < message.keys() for message in steps)
    looked = [message for message in messages if message["kind"] == "validation"]
    assert [(message["step"], message["steps"]) for message in looked] == [(25, 50), (50, 50)]
    records = trainer.progress.history
    assert [{k: message[k] for k in ("error", "level")} for message in looked] == [r["validation"] for r in records]
    assert records[-1]["validation"]["error"] != records[0]["validation"]["error"]
    picture = images.decode(store.get(looked[-1]["grid"]))
    assert picture.shape == (8 * 8, 2 * 8, 3)
    first = pictures(8)[TRAINED].transpose(1, 2, 0)
    assert (picture[:8, :8] == first).all()  # faces as they are, beside what is made of their labels
    assert checkpoint.steps(store, "run/seed-0") == [25, 50]


def test_a_checkpoint_is_what_it_was(tmp_path):
    trainer, store = trainer_of(config_of(*TINY)), open_store(str(tmp_path))
    trainer.fit(store, quiet)
    progress, modules, optimizers = checkpoint.unpack(store.get(checkpoint.key("run/seed-0", 9)))
    assert progress == trainer.progress and modules.keys() == {"maker", "critic", "kept"}
    assert optimizers.keys() == {"maker", "critic"}
    for name, found in optimizers.items():
        ours = trainer.task.optimizers[name].state_dict()["state"]
        assert found["state"].keys() == ours.keys()
        assert all(torch.equal(found["state"][i][k], v) for i, slots in ours.items() for k, v in slots.items())


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(ValueError, match="batch=12 cannot be shared evenly by 5 workers"):
        trainer_of(config_of(*TINY), World(0, 5))


def test_other_splits_than_train_are_refused():
    with pytest.raises(ValueError, match=r"splits=\['train', 'val'\]: a generator is trained on split train alone"):
        config_of(*TINY, "splits=[train,val]")


def test_rows_that_are_looked_at_are_not_trained_on(tmp_path):
    trainer = trainer_of(config_of(*TINY))
    seen = {int(row) for step in range(30) for row in trainer.batches.at(step)}
    assert seen == set(range(TRAINED)) and ROWS > TRAINED
