"""What is wrong with a job's manifests that neither kubectl nor the API server will say.

A rule is a function from a `Case` to its findings. `kuberay` holds what KubeRay's controller refuses only when the
job runs, `queue` what Kueue refuses or never admits, `security` what Pod Security would refuse of pods that do not
exist yet, `references` what names nothing, and `house` what we hold to be right.
"""

from collections.abc import Iterator, Sequence

from synthfer.k8s.lint import kuberay, policy, queue, references, security, workers
from synthfer.k8s.lint.case import Case, Finding, Rule
from synthfer.k8s.objects import Object, rayjobs

RULES: tuple[Rule, ...] = (
    *kuberay.RULES,
    *queue.RULES,
    *security.RULES,
    *references.RULES,
    *policy.RULES,
    *workers.RULES,
)


def lint(objects: Sequence[Object], place: Sequence[Object] = ()) -> list[Finding]:
    """The findings of all rules about each RayJob in `objects`; `place` is what the namespace has besides them."""
    return [finding for job in rayjobs(objects) for finding in _of_job(Case(job, objects, place))]


def _of_job(case: Case) -> Iterator[Finding]:
    for rule in RULES:
        yield from rule(case)
