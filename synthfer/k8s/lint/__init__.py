"""A linter for a job's manifests: problems that neither kubectl nor the API server report.

A rule is a function from a `LintContext` to its findings. The rules of each module check:
- `kuberay`: what KubeRay's controller refuses only when the job runs;
- `queue`: what Kueue refuses or never admits;
- `security`: pods that Pod Security would refuse once KubeRay makes them;
- `references`: names of objects that do not exist;
- `policy`: this project's own rules for every job;
- `workers`: whether the job's keys and its worker groups fit.
"""

from collections.abc import Iterator, Sequence

from synthfer.k8s.lint import kuberay, policy, queue, references, security, workers
from synthfer.k8s.lint.context import Finding, LintContext, Rule
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
    """The findings of all rules about each RayJob in `objects`; `place` holds the other objects of its namespace."""
    return [finding for job in rayjobs(objects) for finding in _of_job(LintContext(job, objects, place))]


def _of_job(context: LintContext) -> Iterator[Finding]:
    for rule in RULES:
        yield from rule(context)
