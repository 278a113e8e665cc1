"""What a lint rule gets, and what it reports."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from synthfer.k8s.objects import Object, cluster_spec, groups, head_spec, job_config, title
from synthfer.k8s.pods import RayPod, pods_of


@dataclass(frozen=True)
class Finding:
    """A problem: object and field, what is wrong, and what to do. A warning may be intended."""

    where: str
    what: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{'warning: ' if self.warning else ''}{self.where}: {self.what}"


@dataclass(frozen=True)
class LintContext:
    """A RayJob, the objects that were rendered with it, and the other objects of its namespace."""

    job: Object
    objects: Sequence[Object]
    place: Sequence[Object] = ()

    @property
    def spec(self) -> Mapping[str, Any]:
        """The RayJob's spec."""
        spec: Mapping[str, Any] = self.job["spec"]
        return spec

    @property
    def cluster(self) -> Mapping[str, Any]:
        """The RayCluster that it asks for."""
        return cluster_spec(self.job)

    @property
    def head(self) -> Mapping[str, Any]:
        """The head's pod spec."""
        return head_spec(self.job)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The worker groups."""
        return groups(self.job)

    @property
    def autoscaling(self) -> bool:
        """Whether Ray's autoscaler runs beside the head."""
        return bool(self.cluster.get("enableInTreeAutoscaling"))

    @cached_property
    def pods(self) -> list[RayPod]:
        """The pods that KubeRay would make."""
        return pods_of(self.job)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The keys of the job itself."""
        return job_config(self.job, self.objects)

    @property
    def everything(self) -> list[Object]:
        """All objects, the job's and the namespace's."""
        return [*self.objects, *self.place]

    def finding(self, field: str, what: str, warning: bool = False) -> Finding:
        """A finding about a field of the job."""
        return Finding(f"{title(self.job)} {field}".strip(), what, warning)


Rule = Callable[[LintContext], Iterator[Finding]]
