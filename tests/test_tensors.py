"""Weight files of anybody: wrapped or plain, read without running code, and fitted key by key."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from synthfer.tensors import WRAPPERS, fitting, read_tensors, to_floats, to_uint8, write_tensors

STATE = {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.arange(3.0)}


def read(path: Path) -> dict[str, torch.Tensor]:
    return read_tensors(path.read_bytes(), path.suffix, str(path))


@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
def test_a_torch_file_is_read_wrapped_or_not(wrapper, tmp_path):
    torch.save(STATE if wrapper is None else {wrapper: STATE, "epoch": 3}, tmp_path / "model.pt")
    found = read(tmp_path / "model.pt")
    assert found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_a_safetensors_file_is_read(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    found = read(tmp_path / "model.safetensors")
    assert found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("body", [{"state_dict": 3}, [torch.zeros(1)], {"weight": torch.zeros(1), "epoch": 1}])
def test_what_is_no_state_dict_is_refused(body, tmp_path):
    torch.save(body, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt holds no state dict; expected tensors by name"):
        read(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_damaged_file_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="holds no plain tensors"):
        read(tmp_path / name)


def test_no_code_of_a_file_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    torch.save({"state_dict": Trap()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="holds no plain tensors"):
        read(tmp_path / "model.pt")
    assert not (tmp_path / "run").exists()


def test_the_longest_known_beginning_is_renamed():
    given = {"module.net.old.weight": STATE["weight"], "module.net.bias": STATE["bias"]}
    found = fitting(nn.Linear(2, 3), given, {"net.": "", "net.old.": ""}, "file")
    assert found.keys() == STATE.keys()


def test_all_that_does_not_fit_is_listed_at_once():
    given = {"weight": torch.zeros(2, 2), "more": torch.zeros(1)}
    with pytest.raises(ValueError) as error:
        fitting(nn.Linear(2, 3), given, {}, "somewhere.pt")
    text = str(error.value)
    assert text.startswith("somewhere.pt does not fit Linear:")
    for part in ("1 missing: bias", "1 unexpected: more", "1 of another shape: weight is (2, 2), here (3, 2)"):
        assert part in text


def test_counters_of_batch_norm_may_be_absent_and_unused_parts_are_passed_over():
    module = nn.BatchNorm1d(3)
    module.unused = ("head.",)
    given = {k: v for k, v in module.state_dict().items() if k != "num_batches_tracked"} | {"head.x": torch.zeros(1)}
    assert fitting(module, given, {}, "file").keys() == module.state_dict().keys()


def test_what_is_written_is_read_whatever_its_layout_in_memory():
    shared = torch.arange(24.0).reshape(1, 2, 3, 4)
    state = {"a": shared.to(memory_format=torch.channels_last), "b": shared, "c": shared[:, 1:]}
    found = read_tensors(write_tensors(state), ".safetensors", "model.safetensors")
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)


def test_all_levels_survive_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_floats(levels)
    assert floats.dtype == torch.float32 and floats[0] == -1 and floats[-1] == 1
    assert torch.equal(to_uint8(floats), levels)


def test_floats_are_rounded_to_the_nearest_level_and_clipped():
    values = torch.tensor([-7.0, -1.0, -1 + 0.6 / 127.5, 0.1 / 127.5, 1.0, 3.0, torch.inf, -torch.inf])
    assert to_uint8(values).tolist() == [0, 0, 1, 128, 255, 255, 255, 0]
