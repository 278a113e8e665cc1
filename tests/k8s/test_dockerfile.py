"""The Dockerfile, as far as it can be tried where nothing can build it: its words, its sources, its shell."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.k8s.dockerfile import TEXT, environment, instructions, stages
from tests.ray_sessions import ROOT

IGNORE = (ROOT / ".dockerignore").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = (ROOT / "constraints.txt").read_text()
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def ignored(path: str, ignore: str = IGNORE) -> bool:
    """Whether .dockerignore keeps a path from the builder: the last pattern that fits it or a parent decides."""
    parts = path.split("/")
    whole = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    verdict = False
    for line in filter(None, (line.strip() for line in ignore.splitlines() if not line.startswith("#"))):
        pattern = _as_regex(line.removeprefix("!").strip("/"))
        if any(re.fullmatch(pattern, one) for one in whole):
            verdict = not line.startswith("!")
    return verdict


def _as_regex(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(part, re.escape(part)) for part in parts)


def copies(text: str) -> Iterator[tuple[str, str]]:
    """Source and target of each COPY out of the checkout."""
    for word, rest in instructions(text):
        if word == "COPY" and "--from=" not in rest:
            *sources, target = [one for one in rest.split() if not one.startswith("--")]
            yield from ((source, target) for source in sources)


def faults(text: str, ignore: str = IGNORE) -> list[str]:
    """What is wrong with a Dockerfile by the project's rules."""
    problems, names = [], set[str]()
    for word, rest in instructions(text):
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            if image not in names and not DIGEST.search(image):
                problems.append(f"FROM {image} has no digest")
            names.add(name)
        if word == "ADD":
            problems.append(f"ADD {rest}: fetches and unpacks; say COPY")
    for source, _ in copies(text):
        if not (ROOT / source).exists():
            problems.append(f"COPY {source}: there is no such file")
        elif ignored(source, ignore):
            problems.append(f"COPY {source}: .dockerignore keeps it out")
    last = stages(text)[-1]
    users = [rest for word, rest in last if word == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        problems.append(f"USER {users[-1] if users else 'root'} is not a number above 0 with its group")
    problems += [f"the image itself runs pip: {rest}" for word, rest in last if word == "RUN" and "pip " in rest]
    return problems


def hadolint(text: str) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("hadolint")), "--no-color", "--failure-threshold", "style", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def test_hadolint_passes():
    done = hadolint(TEXT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_fails_on_a_wrong_file():
    done = hadolint(TEXT.replace("# hadolint ignore=", "# not ignored: ") + "RUN cd /tmp && sudo true\n")
    assert done.returncode != 0
    assert {"DL3003", "DL3004", "DL3008"} <= set(re.findall(r"[DS][LC]\d{4}", done.stdout))


def test_the_dockerfile_keeps_the_rules():
    assert faults(TEXT) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        (r"@sha256:\w+", "", "has no digest"),
        (r"@sha256:(\w{63})\w", r"@sha256:\1", "has no digest"),
        ("FROM base AS code", "FROM python:3.11 AS code", "FROM python:3.11 has no digest"),
        ("USER 1000:1000", "USER synthfer", "USER synthfer is not a number"),
        ("USER 1000:1000", "USER 0:0", "USER 0:0 is not a number"),
        ("USER 1000:1000", "", "USER root is not a number"),
        ("COPY jobs", "COPY scripts", "COPY scripts: there is no such file"),
        ("COPY jobs", "COPY tests", "COPY tests: .dockerignore keeps it out"),
        ("COPY jobs", "ADD jobs", "ADD jobs"),
        ("USER 1000:1000", "RUN pip install ray\nUSER 1000:1000", "the image itself runs pip"),
    ],
)
def test_a_wrong_dockerfile_is_reported(right, wrong, fault):
    text, times = re.subn(right, wrong, TEXT)
    assert times
    assert any(fault in one for one in faults(text)), faults(text)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".env", ".venv/bin/python", "tests/conftest.py", "out/faces/_dataset.json", "k8s/VERSIONS",
        "weights.safetensors", "models/sd/unet.safetensors", "data/fer2013.csv", "build/lib/synthfer/sample.py",
        "synthfer/__pycache__/sample.cpython-311.pyc", "synthfer/.env", "jobs/.aws/credentials", "README.md",
    ],
)  # fmt: skip
def test_what_no_image_needs_does_not_reach_the_builder(path):
    assert ignored(path)
    assert not ignored(path, "")


def test_all_code_and_package_data_reach_the_image():
    command = ["git", "ls-files", "synthfer", "jobs"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    data = {
        str(file.relative_to(ROOT))
        for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for file in (ROOT / package).glob(re.sub(r"\*\*$", "**/*", pattern))
        if file.is_file()
    }
    assert len(data) > 5
    sources = {source for source, _ in copies(TEXT)}
    left_out = {one for one in data | set(listed.stdout.split()) if ignored(one) or one.split("/")[0] not in sources}
    assert not left_out
    assert any(ignored(one, IGNORE + "**/*.json\n") for one in data)


def test_no_weights_but_the_packages_own():
    heavy = {".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".onnx", ".npz"}
    folders = [ROOT / source for source, _ in copies(TEXT) if (ROOT / source).is_dir()]
    large = [file.relative_to(ROOT) for folder in folders for file in folder.rglob("*") if file.suffix in heavy]
    assert large
    assert all(str(one).startswith("synthfer/assets/") for one in large), large


def run_step(stage: str, folder: Path, **env: str) -> subprocess.CompletedProcess:
    """The shell of the only RUN of a stage, with the files that it reads from / in a folder, and all else harmless."""
    steps = next(one for one in stages(TEXT) if one[0][1].endswith(f" AS {stage}"))
    arguments = dict(rest.partition("=")[::2] for word, rest in steps if word == "ARG")
    (script,) = [rest for word, rest in steps if word == "RUN"]
    script = re.sub(r"^--mount=\S+\s*\\?\n?", "", script)
    script = re.sub(r"(?<![\w.])/(?=[\w.]+\.(?:toml|txt)\b)", f"{folder}/", script)
    env = {**arguments, "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}", **env}
    return subprocess.run(["/bin/sh", "-c", script], env=env, cwd=folder, capture_output=True, text=True, check=False)


def test_the_list_of_what_to_install_is_that_of_the_project(tmp_path):
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    done = run_step("requirements", tmp_path)
    assert done.returncode == 0, done.stderr
    listed = (tmp_path / "requirements.txt").read_text().splitlines()
    extras = [rest.partition("=")[2].split(",") for word, rest in instructions(TEXT) if rest.startswith("EXTRAS=")]
    wanted = [one for extra in extras[0] for one in PROJECT["project"]["optional-dependencies"][extra]]
    assert listed == PROJECT["project"]["dependencies"] + wanted
    assert run_step("requirements", tmp_path, EXTRAS="avatar").returncode != 0


@pytest.mark.parametrize("variant", ["gpu", "cpu", "tpu"])
def test_the_variant_chooses_where_torch_comes_from(tmp_path, variant):
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$*"\n')  # says what it would install
    pip.chmod(0o755)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    done = run_step("dependencies", tmp_path, VARIANT=variant)
    if variant == "tpu":
        assert done.returncode == 2
        assert "gpu or cpu, not tpu" in done.stderr
        return
    torch, rest = done.stdout.splitlines()
    assert ("download.pytorch.org/whl/cpu" in torch) == (variant == "cpu")
    assert " torch" in torch
    for line in (torch, rest):
        assert f"-c {tmp_path}/constraints.txt" in line
        assert "--only-binary :all:" in line
    assert rest.endswith(f"-r {tmp_path}/requirements.txt")


def unpinned(pins: str) -> set[str]:
    """Distributions that the image installs, by what is installed here, without a line of their own in the pins."""
    exact = {canonicalize_name(line.split("==")[0]) for line in pins.splitlines() if "==" in line}
    options = PROJECT["project"]["optional-dependencies"]
    todo = [Requirement(one) for one in PROJECT["project"]["dependencies"]]
    todo += [Requirement(one) for extra in ("avatars", "lora", "track") for one in options[extra]]
    seen = set[tuple[str, str]]()
    while todo:
        one = todo.pop()
        for extra in one.extras or {""}:
            if (one.name, extra) not in seen:
                seen.add((one.name, extra))
                todo += _needed(one.name, extra)
    return {canonicalize_name(name) for name, _ in seen} - exact


def _needed(name: str, extra: str) -> list[Requirement]:
    try:
        known = [Requirement(one) for one in requires(name) or ()]
    except PackageNotFoundError:  # an extra that is not installed here
        return []
    return [one for one in known if one.marker is None or one.marker.evaluate({"extra": extra})]


def test_every_distribution_in_the_image_has_an_exact_version():
    assert unpinned(PINS) == set()
    assert unpinned(PINS.replace("cloudpickle==", "#")) == {"cloudpickle"}


def test_the_image_is_what_the_manifests_expect():
    last, env = stages(TEXT)[-1], environment()
    job = yaml.safe_load((ROOT / "k8s/jobs/common/rayjob.yaml").read_text())
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    security, variables = pod["securityContext"], {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert next(rest for word, rest in last if word == "USER") == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert env["HOME"] == variables["HOME"]
    assert env["RAY_USAGE_STATS_ENABLED"] == "0"
    assert env["PYTHONDONTWRITEBYTECODE"] == "1"
    assert absent_scripts(ROOT.glob("k8s/jobs/*/job.yaml")) == []


def absent_scripts(files: Iterator[Path] | Sequence[Path]) -> list[str]:
    """Scripts that entrypoints call and the image has not."""
    called = {script for file in files for script in re.findall(r"python (/\S+\.py)", file.read_text())}
    assert called
    targets = {target: source for source, target in copies(TEXT)}
    return [one for one in called if not (ROOT / targets.get(str(Path(one).parent), "") / Path(one).name).is_file()]


def test_an_entrypoint_that_the_image_lacks_is_reported(tmp_path):
    (tmp_path / "job.yaml").write_text("value: python /opt/synthfer/jobs/generat.py --json\n")
    assert absent_scripts([tmp_path / "job.yaml"]) == ["/opt/synthfer/jobs/generat.py"]
