"""The recipe of builtin:faces, from drawings to a folder that the generator loads; a few steps of each phase."""

import numpy as np
import pytest

from synthfer.builtin_faces.train import TrainConfig, train
from synthfer.generators import diffusion
from synthfer.sample import Row


@pytest.mark.timeout(900)  # minutes of computing where other processes have the cores
def test_a_trained_folder_is_a_pipeline_that_makes_pictures(tmp_path):
    out = tmp_path / "model"
    few = {"faces": 128, "captions": 2, "autoencoder_steps": 3, "text_steps": 5, "flow_steps": 5}
    train(TrainConfig(out=str(out), work=str(tmp_path / "work"), **few))
    assert sum(file.stat().st_size for file in out.rglob("*")) < 10 * 2**20
    generator = diffusion.build(diffusion.Config(model=str(out), batch_size=2))
    assert generator.producer()["steps"] == 10
    rows = [Row(index=i, label=3, seed=i, prompt="a happy woman") for i in range(2)]
    pictures = generator.make(rows)
    assert all(isinstance(picture, np.ndarray) and picture.shape == (64, 64, 3) for picture in pictures)
