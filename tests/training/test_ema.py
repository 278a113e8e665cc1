"""Averaged weights: the recurrence by hand, buffers of the last step, and coming back from a state dict."""

import io

import pytest
import torch
from torch import nn

from synthfer import classifiers
from synthfer.classifiers import InputSpec
from synthfer.training.ema import Average


def moved(model: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        for buffer in model.buffers():
            buffer.add_(1)
    return model


@pytest.mark.parametrize("most", [0.999, 0.2])
def test_weights_follow_the_recurrence_and_buffers_the_last_step(most: float):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = Average(model, most)
    expected = [p.detach().double() for p in model.parameters()]
    for step in range(30):
        moved(model, step)
        average.update(model, step)
        memory = min(most, (1 + step) / (10 + step))
        expected = [
            memory * old + (1 - memory) * p.detach().double()
            for old, p in zip(expected, model.parameters(), strict=True)
        ]
    for p, wanted in zip(average.model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.double(), wanted, rtol=1e-5, atol=1e-6)
    for ours, last in zip(average.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(ours, last) and ours is not last


def test_the_copy_is_in_eval_mode_asks_for_no_gradient_and_leaves_the_model_alone():
    model = classifiers.build("small").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    average = Average(model, 0.9)
    assert not average.model.training and model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    average.update(model, 0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    assert not average.model(images).logits.requires_grad


def test_no_memory_is_the_model_itself_and_weights_that_stand_still_stay():
    model = classifiers.build("small")
    average = Average(model, 0.999)
    average.update(model, 0)
    assert all(torch.equal(value, average.state_dict()[key]) for key, value in model.state_dict().items())
    forgetful = Average(model, 0.0)
    forgetful.update(moved(model, 1), 100)
    assert all(torch.equal(value, forgetful.state_dict()[key]) for key, value in model.state_dict().items())


def test_buffers_outside_the_state_dict_come_along():
    model = classifiers.build("small")
    average = Average(model, 0.9)
    model.set_input(InputSpec(size=48, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)))
    average.update(model, 0)
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    assert torch.equal(average.model.normalise(images), model.normalise(images))
    assert "_mean" not in average.state_dict()


def test_a_resumed_average_goes_on_bit_for_bit():
    model = classifiers.build("small")
    average = Average(model, 0.99)
    for step in range(3):
        average.update(moved(model, step), step)
    file = io.BytesIO()
    torch.save(average.state_dict(), file)
    file.seek(0)
    resumed = Average(classifiers.build("small"), 0.99)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    moved(model, 3)
    for one in (average, resumed):
        one.update(model, 3)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in average.state_dict().items())
    with pytest.raises(RuntimeError, match="head"):
        resumed.load_state_dict({key: value for key, value in average.state_dict().items() if "head" not in key})
