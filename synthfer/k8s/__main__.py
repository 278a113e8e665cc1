"""`python -m synthfer.k8s render|lint|submit|fetch`: what kubectl and kustomize cannot do with the jobs in k8s/."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthfer.cli import Command, Invocation, Outcome, run_commands
from synthfer.k8s import fetch as fetching
from synthfer.k8s import submit as submitting
from synthfer.k8s.lint import lint
from synthfer.k8s.lint.context import Finding
from synthfer.k8s.objects import Object, dump, is_kustomization, rayjobs, render
from synthfer.k8s.pods import pods_of
from synthfer.schema import REQUIRED, ConfigError, option

log = logging.getLogger("synthfer.k8s")


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """A job's manifests, and those of the namespace where it runs."""

    job: str = option(REQUIRED, "folder with the kustomization of a job, as k8s/overlays/production/generate")
    place: str | None = option(None, "kustomization of the namespace, its queues and accounts (null: the folder above)")

    def objects(self) -> list[dict[str, Any]]:
        """The job's objects."""
        objects = render(self.job)
        if not rayjobs(objects):
            raise ConfigError(f"job={self.job}: there is no RayJob in it; the jobs are the folders of an overlay")
        return objects

    def surroundings(self) -> list[dict[str, Any]]:
        """The other objects of the namespace; none where there is no kustomization for them."""
        above = Path(self.job).resolve().parent
        if self.place is None and not is_kustomization(above):
            return []
        return render(self.place or above)


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """What to copy, and where to."""

    source: str = option(REQUIRED, "the weights: s3://bucket/prefix or a folder")
    out: str = option(REQUIRED, "the folder to copy them to")


def show(config: JobConfig, invocation: Invocation) -> Outcome:
    """Prints the pods that KubeRay would make, as YAML."""
    pods = [pod.manifest for job in rayjobs(config.objects()) for pod in pods_of(job)]
    invocation.results.print(dump(pods), soft_wrap=True, markup=False)
    return Outcome({"pods": [pod["metadata"]["name"] for pod in pods]} if invocation.json else {})


def check(config: JobConfig, invocation: Invocation) -> Outcome:
    """Report the problems of a job's manifests; `ConfigError` where there are errors."""
    objects = config.objects()
    warnings = checked(objects, config.surroundings())
    names = [one["metadata"]["name"] for one in rayjobs(objects)]
    return Outcome({"jobs": names, "errors": 0, "warnings": len(warnings)})


def checked(objects: list[dict[str, Any]], place: list[dict[str, Any]]) -> list[Finding]:
    """The warnings, logged; `ConfigError` with all errors if there are any."""
    findings = lint(objects, place)
    for finding in findings:
        if finding.warning:
            log.warning("%s: %s", finding.where, finding.what)
    if errors := [str(finding) for finding in findings if not finding.warning]:
        raise ConfigError(*errors)
    return [finding for finding in findings if finding.warning]


def submit(config: JobConfig, invocation: Invocation) -> Outcome:
    """Checks a job and creates it, once."""
    objects: list[Object] = list(config.objects())
    checked(list(config.objects()), config.surroundings())
    return Outcome(submitting.submit(objects))


def fetch(config: FetchConfig, invocation: Invocation) -> Outcome:
    """Copies weights."""
    files, size = fetching.fetch(config.source, Path(config.out))
    return Outcome({"files": files, "bytes": size})


ABOUT = "Looks after synthfer's jobs on Kubernetes; kubectl, kustomize and helm do the rest."
COMMANDS = {
    "render": Command(
        JobConfig,
        show,
        about="Prints the pods that KubeRay would make of a job, for other linters and for reading. The "
        "manifests themselves: kubectl kustomize FOLDER.",
        example="python -m synthfer.k8s render job=k8s/overlays/production/generate",
    ),
    "lint": Command(
        JobConfig,
        check,
        about="Reports problems of a job that neither kubectl nor the API server report: what KubeRay and "
        "Kueue refuse later, pods that Pod Security would refuse, names of missing objects, GPUs that "
        "no group has.",
        example="python -m synthfer.k8s lint job=k8s/overlays/production/generate",
    ),
    "submit": Command(
        JobConfig,
        submit,
        dry_run=check,
        about="Checks a job and creates it in the cluster of the current kubectl context. The name is that of "
        "the content: submitted twice, it is one job.",
        example="python -m synthfer.k8s submit job=k8s/overlays/production/generate",
    ),
    "fetch": Command(
        FetchConfig,
        fetch,
        about="Copies weights from the bucket to a folder; what is there stays. k8s/weights/s3 runs it.",
        example="python -m synthfer.k8s fetch source=s3://bucket/model out=/models",
    ),
}

if __name__ == "__main__":
    run_commands(COMMANDS, ABOUT)
