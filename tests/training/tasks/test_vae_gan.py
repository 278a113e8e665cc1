"""The training of VAE-GANs: losses against formulas, steps that repeat, ranks that agree, what is kept at the end."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from synthfer.generators.vae_gan.networks import CriticOutput
from synthfer.sources.avatars import draw, sample_attributes
from synthfer.training import tasks
from synthfer.training.batch_rng import BatchRng
from synthfer.training.tasks import Batch
from synthfer.training.tasks.vae_gan import VaeGanTask, difference, divergence, hinge, psnr
from synthfer.training.world import World

SMALL: dict[str, Any] = {"size": 32, "width": 8, "latent": 16}
SILENT = dict.fromkeys(("pixel", "feature", "class_feature", "kl", "adversarial", "classification"), 0.0)


def task(seed: int = 0, steps: int = 10, **options: Any) -> VaeGanTask:
    torch.manual_seed(seed)
    made = tasks.build("vae_gan", **(SMALL | options))
    assert isinstance(made, VaeGanTask)
    made.begin(steps)
    return made


def batch(n: int = 8) -> Batch:
    chance = torch.Generator().manual_seed(3)
    return Batch(torch.rand(n, 3, 32, 32, generator=chance) * 2 - 1, torch.arange(n) % 7)


def drawn(n: int) -> Batch:
    faces = np.stack([draw(sample_attributes(seed), 32) for seed in range(n)])
    return Batch(torch.from_numpy(faces).permute(0, 3, 1, 2) / 127.5 - 1, torch.arange(n) % 7)


def draws(n: int = 8, seed: int = 5) -> BatchRng:
    return BatchRng(seed, n, World())


def flat(module: nn.Module) -> Tensor:
    return torch.cat([value.flatten() for value in module.state_dict().values() if value.is_floating_point()])


# -- formulas


def test_divergence_is_that_of_torch_and_no_number_counts_less_than_the_free_bits() -> None:
    chance = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 3, generator=chance)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    each = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(mean, log_variance), each.sum(1))
    free = divergence(torch.tensor([[1.0, 0.1]]), torch.zeros(1, 2), free=0.05)
    torch.testing.assert_close(free, torch.tensor([0.5 + 0.05]))  # 0.1^2 / 2 is less


def test_hinge_counts_what_is_on_the_wrong_side_of_the_margin_and_averages_over_what_is_made() -> None:
    real, again, fresh = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0]), torch.tensor([-0.5, 1.0])
    assert hinge(real, again, fresh).item() == pytest.approx(0.25 + (0.5 + 1.25) / 2)


def test_maps_differ_by_the_sum_of_their_mean_differences() -> None:
    none = torch.zeros(2)
    one = CriticOutput(none, [torch.zeros(2, 1, 2, 2), torch.ones(2, 3, 1, 1)])
    other = CriticOutput(none, [torch.full((2, 1, 2, 2), 0.5), torch.full((2, 3, 1, 1), -1.0)])
    assert difference(one, other).item() == pytest.approx(0.5 + 2.0)


def test_psnr_is_of_pictures_in_0_to_255() -> None:
    one = torch.zeros(1, 3, 4, 4)
    assert psnr(one, one + 2 * 10 / 255).item() == pytest.approx(20 * np.log10(255 / 10), rel=1e-5)


def test_a_step_tells_the_losses_that_its_parts_have() -> None:
    """By another way: the networks in their state before the step, called one after the other."""
    made, given = task(), batch()
    made.discriminator.eval()  # the spectral norm then keeps its vectors
    before = copy.deepcopy(made)
    told = made.step(0, given, draws())
    chance = draws()
    mean, log_variance = before.net.encoder(given.images)
    codes = mean + (0.5 * log_variance).exp() * chance.normal(16)
    prior, foreign, labels = chance.normal(16), chance.uniform() < 0.5, chance.integers(7)
    assert foreign.any() and not foreign.all()
    labels = torch.where(foreign, labels, given.labels)
    again = before.net.generator(codes, given.labels)
    fresh = before.net.generator(torch.where(foreign[:, None], codes, prior), labels)
    pictures = given.images.clone().requires_grad_()
    of_real = before.discriminator(pictures, given.labels)
    of_again, of_fresh = before.discriminator(again, given.labels), before.discriminator(fresh, labels)
    judged_real, judged_again, judged_fresh = (before.classifier(shown) for shown in (given.images, again, fresh))
    (slope,) = torch.autograd.grad(of_real.scores.sum(), pictures, retain_graph=True)
    expected = {
        "pixel": (again - given.images).abs().mean(),
        "feature": sum((a - b).abs().mean() for a, b in zip(of_real.maps, of_again.maps, strict=True)),
        "class_feature": sum((a - b).abs().mean() for a, b in zip(judged_real.maps, judged_again.maps, strict=True)),
        "kl": divergence(mean, log_variance, 0.05).mean(),
        "adversarial": -torch.cat([of_again.scores, of_fresh.scores]).mean(),
        "classification": nn.functional.cross_entropy(judged_fresh.scores, labels),
        "discriminator": hinge(of_real.scores, of_again.scores, of_fresh.scores),
        "judge": nn.functional.cross_entropy(judged_real.scores, given.labels),
        "r1": slope.square().sum((1, 2, 3)).mean(),
    }
    assert told.keys() == expected.keys()
    for name, value in expected.items():
        assert not told[name].requires_grad
        torch.testing.assert_close(told[name], value.detach(), msg=lambda text, name=name: f"{name}: {text}")


def test_the_steepness_is_seen_to_every_few_steps() -> None:
    made = task(r1_every=3)
    assert ["r1" in made.step(step, batch(), draws()) for step in range(5)] == [True, False, False, True, False]
    assert "r1" not in task(r1=0.0).step(0, batch(), draws())


def test_each_side_learns_from_its_own_loss_alone() -> None:
    made = task(**SILENT)
    before = flat(made.net), flat(made.discriminator)
    made.step(0, batch(), draws())
    assert torch.equal(flat(made.net), before[0])
    assert not torch.equal(flat(made.discriminator), before[1])
    for weight in SILENT:
        made = task(**(SILENT | {weight: 1.0}))
        before = flat(made.net)
        made.step(1, batch(), draws())
        assert not torch.equal(flat(made.net), before), weight


def test_without_its_weights_there_is_no_classifier() -> None:
    made = task(classification=0.0, class_feature=0.0)
    assert "judge" not in made.modules and "judge" not in made.optimizers
    assert "judge" not in made.step(0, batch(), draws())


def test_the_divergence_warms_up_and_rates_fall_to_nothing() -> None:
    made = task(steps=100, decay=0.5, **(SILENT | {"kl": 2.0, "kl_warmup": 0.2}))
    told = dict.fromkeys(SILENT, torch.tensor(0.0)) | {"kl": torch.tensor(3.0)}
    assert [round(float(made._net_loss(told, step)), 5) for step in (0, 9, 19, 50)] == [0.3, 3.0, 6.0, 6.0]
    rates = []
    for step in (0, 50, 75, 99):
        made.step(step, batch(), draws())
        rates.append(made.optimizers["net"].param_groups[0]["lr"] / made.config.lr)
    assert rates == pytest.approx([1.0, 1.0, 0.5, 0.02])


# -- steps


def test_steps_repeat_bit_by_bit_and_other_chance_changes_them() -> None:
    def after(seed: int) -> Tensor:
        made = task()
        for step in range(2):
            made.step(step, batch(), draws(seed=seed + step))
        return torch.cat([flat(module) for module in made.modules.values()])

    assert torch.equal(after(1), after(1))
    assert not torch.equal(after(1), after(2))


def test_what_is_saved_is_all_there_is() -> None:
    """A run that goes on from states alone ends with the bits of one that was never cut off."""
    whole, first, second = task(), task(), task(seed=9)
    for step in range(4):
        whole.step(step, batch(), draws(seed=step))
    for step in range(2):
        first.step(step, batch(), draws(seed=step))
    for name, module in first.modules.items():
        second.modules[name].load_state_dict(module.state_dict())
    for name, optimizer in first.optimizers.items():
        second.optimizers[name].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(2, 4):
        second.step(step, batch(), draws(seed=step))
    for name, module in whole.modules.items():
        assert torch.equal(flat(module), flat(second.modules[name])), name


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    made, given, world = task(), batch(), World(rank, 2)
    mine = Batch(given.images[rank::2], given.labels[rank::2])
    told = made.step(0, mine, BatchRng(5, 8, world))
    losses = {name: float(world.all_reduce(loss.clone()) / 2) for name, loss in told.items()}
    torch.save([torch.cat([flat(module) for module in made.modules.values()]), losses], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_take_the_step_of_one(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    (one, losses), (two, _) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    made = task()
    told = made.step(0, batch(), draws())
    alone = torch.cat([flat(module) for module in made.modules.values()])
    assert torch.equal(one, two)
    assert losses == pytest.approx({name: float(loss) for name, loss in told.items()}, rel=1e-4)
    # Adam's first step is as long for a gradient of nothing but rounding, which ranks round otherwise.
    assert (one - alone).abs().gt(1e-5).float().mean() < 0.01


def test_reconstructions_get_nearer_and_the_average_follows() -> None:
    made, given = task(steps=60, lr=2e-3, ema=0.9), drawn(32)
    before = made.validate_batch(given, draws(32))
    first = made.step(0, given, draws(32))
    for step in range(1, 60):
        last = made.step(step, given, draws(32, seed=step))
    after = made.validate_batch(given, draws(32))
    assert last["pixel"] < 0.6 * first["pixel"]
    assert after["psnr"] > before["psnr"] + 4 and np.isfinite(after["kl"])


# -- what is kept


def test_the_end_learns_the_classes_and_whether_all_is_grey() -> None:
    made, given = task(), batch(24)
    grey = Batch(given.images[:, :1].expand(-1, 3, -1, -1), given.labels.where(given.labels != 4, 3))
    made.finish([Batch(grey.images[:16], grey.labels[:16]), Batch(grey.images[16:], grey.labels[16:])])
    card = made.card()
    assert card.architecture == "vae_gan"
    assert card.options == {"size": 32, "width": 8, "latent": 16, "grey": True}
    kept = made.weights()
    with torch.no_grad():
        codes = made.modules["average"].encoder(grey.images)[0].double().numpy()
    labels = grey.labels.numpy()
    means = np.stack([codes[labels == c].mean(0) if (labels == c).any() else codes.mean(0) for c in range(7)])
    rest = codes - means[labels]
    within = rest.T @ rest / 24
    assert kept["counts"].tolist() == np.bincount(labels, minlength=7).tolist()
    np.testing.assert_allclose(kept["means"].numpy(), means, atol=1e-5)
    for label in range(7):
        own = rest[labels == label]
        expected = (own.T @ own + 16 * within) / (len(own) + 16)
        np.testing.assert_allclose(kept["covariances"][label].numpy(), expected, atol=1e-5)
    made.finish([given])
    assert made.card().options["grey"] is False


def test_the_sheet_shows_sources_what_comes_back_and_all_classes() -> None:
    made, given = task(), batch(3)
    sheet = made.grid(given, draws(3))
    assert sheet.dtype == np.uint8 and sheet.shape == (3 * 32, (4 + 7) * 32, 3)
    source = ((given.images[1].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    assert np.array_equal(sheet[32:64, :32], source)
    # The second picture is of class 1: what comes back is what its code gives under that class.
    assert np.array_equal(sheet[32:64, 32:64], sheet[32:64, 32 * 5 : 32 * 6])
    assert not np.array_equal(sheet[32:64, 64:96], sheet[32:64, 96:128])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 50}, "size is 50; it takes one of 32, 48, 64, 112"), ({"width": 12}, "width is 12")],
)
def test_networks_that_do_not_exist_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**options)
