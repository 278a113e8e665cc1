"""Weight files of anybody: wrapped or plain, read without running code, and fitted key by key."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from synthfer.tensors import WRAPPERS, fitting, read_tensors

STATE = {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.arange(3.0)}


@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
def test_a_torch_file_is_read_wrapped_or_not(wrapper, tmp_path):
    torch.save(STATE if wrapper is None else {wrapper: STATE, "epoch": 3}, tmp_path / "model.pt")
    found = read_tensors(tmp_path / "model.pt")
    assert found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_a_safetensors_file_is_read(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    found = read_tensors(tmp_path / "model.safetensors")
    assert found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("body", [{"state_dict": 3}, [torch.zeros(1)], {"weight": torch.zeros(1), "epoch": 1}])
def test_what_is_no_state_dict_is_refused(body, tmp_path):
    torch.save(body, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt holds no state dict; expected tensors by name"):
        read_tensors(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_damaged_file_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="holds no plain tensors"):
        read_tensors(tmp_path / name)


def test_no_code_of_a_file_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    torch.save({"state_dict": Trap()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="holds no plain tensors"):
        read_tensors(tmp_path / "model.pt")
    assert not (tmp_path / "run").exists()


def test_the_longest_known_beginning_is_renamed():
    given = {"module.net.old.weight": STATE["weight"], "module.net.bias": STATE["bias"]}
    found = fitting(nn.Linear(2, 3), given, {"net.": "", "net.old.": ""}, "file")
    assert found.keys() == STATE.keys()


def test_all_that_does_not_fit_is_listed_at_once():
    given = {"weight": torch.zeros(2, 2), "more": torch.zeros(1)}
    with pytest.raises(ValueError) as told:
        fitting(nn.Linear(2, 3), given, {}, "somewhere.pt")
    text = str(told.value)
    assert text.startswith("somewhere.pt does not fit Linear:")
    for part in ("1 missing: bias", "1 unexpected: more", "1 of another shape: weight is (2, 2), here (3, 2)"):
        assert part in text


def test_counters_of_batch_norm_may_be_absent_and_unused_parts_are_passed_over():
    module = nn.BatchNorm1d(3)
    module.unused = ("head.",)
    given = {k: v for k, v in module.state_dict().items() if k != "num_batches_tracked"} | {"head.x": torch.zeros(1)}
    assert fitting(module, given, {}, "file").keys() == module.state_dict().keys()
