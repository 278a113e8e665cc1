"""The benchmark of generators that load weights: the parts of an edit, and each job beside its bare loop."""

import io

import pytest
from rich.console import Console

from synthfer.benchmarks.generation import BenchmarkConfig, generate
from synthfer.benchmarks.generators import NetworksConfig
from synthfer.cli import Invocation

TINY = NetworksConfig(images=32, edits=6, size=16, width=8, batch_size=4)


def measured(*parts: str) -> dict:
    quiet = Invocation(Console(file=io.StringIO()), Console(file=io.StringIO()))
    return dict(generate(BenchmarkConfig(parts=list(parts), networks=TINY), quiet).summary)


def test_the_parts_of_an_edit_are_timed_apart():
    told = measured("edit")["edit"]
    assert told["faces"] == 6 and told["found"] <= 6
    assert set(told["ms_per_face"]) == {"detection", "edit", "paste"}  # no weights of CodeFormer are given
    assert all(spent > 0 for spent in told["ms_per_face"].values())


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("part", ["expression_editor", "vae_gan", "gan"])
def test_a_job_stands_beside_its_bare_loop(part):
    told = measured(part)
    assert len(told[part]["bare_images_per_s"]) == 2 and told[part]["job_images_per_s"] > 0
    rate = 2 / sum(1 / bare for bare in told[part]["bare_images_per_s"])
    assert told[part]["job_to_bare"] == pytest.approx(told[part]["job_images_per_s"] / rate, rel=0.01)
