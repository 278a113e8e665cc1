"""Our manifests have no findings, and each rule has one about a manifest that breaks it."""

from collections.abc import Callable

import pytest
import yaml

from synthfer.k8s import __main__ as commands
from synthfer.k8s.lint import RULES, lint
from synthfer.k8s.objects import quantity
from tests.k8s.overlays import JOBS, digested, rendered

CLUSTER = ("spec", "rayClusterSpec")
HEAD = (*CLUSTER, "headGroupSpec")
HEAD_POD = (*HEAD, "template", "spec")
HEAD_BOX = (*HEAD_POD, "containers", 0)
GROUPS = (*CLUSTER, "workerGroupSpecs")
CPU, SPOT = (*GROUPS, 0), (*GROUPS, 1)
SPOT_POD = (*SPOT, "template", "spec")
SPOT_BOX = (*SPOT_POD, "containers", 0)
GONE = object()


def change(*path_and_value) -> Callable[[dict], None]:
    """A change of the RayJob: a value for a path, or the path removed."""
    *path, value = path_and_value

    def apply(job: dict) -> None:
        *outer, last = path
        for key in outer:
            job = job[key]
        if value is GONE:
            del job[last]
        else:
            job[last] = value

    return apply


def rules(*steps: tuple[str, str, int]) -> dict:
    return {
        "deletionRules": [
            {"policy": policy, "condition": {"jobStatus": state, "ttlSeconds": seconds}}
            for policy, state, seconds in steps
        ]
    }


FAILED = {"policy": "DeleteCluster", "condition": {"jobDeploymentStatus": "Failed"}}

# name -> overlay, change of the RayJob, what is said
WRONG = {
    # KubeRay's controller
    "a name that is too long": ("dev", change("metadata", "name", "g" * 48), "at most 47"),
    "a name that begins with a digit": ("dev", change("metadata", "name", "7generate"), "begin with a letter"),
    "a group's name": ("dev", change(*CPU, "groupName", "CPU_pool"), "is not a DNS label"),
    "a group's name twice": ("dev", change(*CPU, "groupName", "l4-spot"), "is the name of two groups"),
    "both ways to end": ("dev", change("spec", "shutdownAfterJobFinishes", True), "exclude each other"),
    "a wait without an end": ("dev", change("spec", "ttlSecondsAfterFinished", 9), "needs shutdownAfterJobFinishes"),
    "workers deleted under an autoscaler": (
        "dev",
        change("spec", "deletionStrategy", rules(("DeleteWorkers", "FAILED", 0))),
        "DeleteWorkers does not work",
    ),
    "the job before its cluster": (
        "dev",
        change("spec", "deletionStrategy", rules(("DeleteCluster", "FAILED", 60), ("DeleteSelf", "FAILED", 5))),
        "must grow",
    ),
    "one rule twice": (
        "dev",
        change("spec", "deletionStrategy", rules(("DeleteSelf", "FAILED", 60), ("DeleteSelf", "FAILED", 60))),
        "two rules",
    ),
    "a mode that is none": ("dev", change("spec", "submissionMode", "K8JobMode"), "is not a mode"),
    "a sidecar with a template": (
        "dev",
        change("spec", "submissionMode", "SidecarMode"),
        "does not work with SidecarMode",
    ),
    "a cluster of its own and another's": (
        "dev",
        change("spec", "clusterSelector", {"ray.io/cluster": "other"}),
        "does not work with clusterSelector",
    ),
    "an environment that does not parse": ("dev", change("spec", "runtimeEnvYAML", "a: [b"), "is not YAML"),
    "an environment that is a list": ("dev", change("spec", "runtimeEnvYAML", "[a]"), "must be a mapping"),
    "idle time under the old autoscaler": (
        "dev",
        change(*CLUSTER, "autoscalerOptions", "version", "v1"),
        "needs enableInTreeAutoscaling",
    ),
    "pods that restart": ("dev", change(*SPOT_POD, "restartPolicy", "Always"), "must be Never"),
    "a head that restarts": ("dev", change(*HEAD_POD, "restartPolicy", "OnFailure"), "must be Never"),
    "fewer than the least": ("dev", change(*CPU, "minReplicas", 9), "must lie between"),
    "labels where they are refused": ("dev", change(*CPU, "rayStartParams", "labels", "a=b"), "use the group's own"),
    "sizes said twice": (
        "dev",
        lambda job: (
            change(*CPU, "resources", {"CPU": "4"})(job),
            change(*CPU, "rayStartParams", "num-cpus", "4")(job),
        ),
        "leave one of them",
    ),
    "a token for a Ray that knows none": ("dev", change(*CLUSTER, "rayVersion", "2.51.0"), "needs 2.52"),
    "redis said twice": (
        "dev",
        lambda job: (
            change(*CLUSTER, "gcsFaultToleranceOptions", {"redisAddress": "redis:6379"})(job),
            change(*HEAD_BOX, "env", [{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}])(job),
        ),
        "excludes gcsFaultToleranceOptions",
    ),
    # Kueue
    "a queued job that is not ended": ("production", change("spec", "shutdownAfterJobFinishes", False), "must be true"),
    "a queued job that grows unseen": ("production", change("metadata", "annotations", {}), "elastic-job"),
    "a queued job on another's cluster": (
        "production",
        change("spec", "clusterSelector", {"ray.io/cluster": "other"}),
        "escapes the quota",
    ),
    "a group called head": ("production", change(*CPU, "groupName", "head"), "choose another"),
    "a number left out": ("production", change(*CPU, "replicas", GONE), "Kueue counts 1"),
    "too many pod sets": (
        "production",
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"].extend(
            job["spec"]["rayClusterSpec"]["workerGroupSpecs"][:1] * 15
        ),
        "at most 16 groups",
    ),
    "more than the quota": ("production", change(*SPOT, "maxReplicas", 65), "nvidia.com/gpu of flavor l4-spot"),
    "a pod larger than any quota": (
        "production",
        change(*HEAD_BOX, "resources", "requests", "cpu", "4000"),
        "one pod needs",
    ),
    "a kind of node that no flavor has": (
        "production",
        change(*SPOT_POD, "nodeSelector", "synthfer.io/pool", "tpu"),
        "no flavor of ClusterQueue",
    ),
    "a resource that no quota covers": (
        "production",
        lambda job: change(*SPOT_BOX, "resources", "limits", "rdma/hca", "1")(job),
        "does not cover rdma/hca",
    ),
    "a queue that is not there": (
        "production",
        change("metadata", "labels", "kueue.x-k8s.io/queue-name", "nobody"),
        "no LocalQueue nobody",
    ),
    "a priority that is not there": (
        "production",
        change("metadata", "labels", "kueue.x-k8s.io/priority-class", "nobody"),
        "no WorkloadPriorityClass nobody",
    ),
    # Pod Security
    "a mode that Pod Security refuses": (
        "dev",
        change("spec", "submissionMode", "SidecarMode"),
        "Pod Security refuses",
    ),
    "the host's network": ("dev", change(*HEAD_POD, "hostNetwork", True), "hostNetwork: Pod Security"),
    "a folder of the host": (
        "dev",
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["template"]["spec"]["volumes"].append(
            {"name": "disk", "hostPath": {"path": "/"}}
        ),
        "hostPath is not among",
    ),
    "a privileged container": ("dev", change(*SPOT_BOX, "securityContext", "privileged", True), "privileged"),
    "rights that grow": (
        "dev",
        change(*SPOT_BOX, "securityContext", "allowPrivilegeEscalation", GONE),
        "allowPrivilegeEscalation",
    ),
    "capabilities kept": ("dev", change(*SPOT_BOX, "securityContext", "capabilities", GONE), "must hold ALL"),
    "capabilities added": (
        "dev",
        change(*SPOT_BOX, "securityContext", "capabilities", "add", ["SYS_ADMIN"]),
        "NET_BIND_SERVICE only",
    ),
    "root": ("dev", change(*SPOT_POD, "securityContext", "runAsUser", 0), "must not be 0"),
    "perhaps root": (
        "dev",
        lambda job: (
            change(*SPOT_POD, "securityContext", "runAsNonRoot", False)(job),
            change(*SPOT_BOX, "securityContext", "runAsNonRoot", GONE)(job),
        ),
        "runAsNonRoot",
    ),
    "no seccomp": (
        "dev",
        lambda job: (
            change(*SPOT_POD, "securityContext", "seccompProfile", GONE)(job),
            change(*SPOT_BOX, "securityContext", "seccompProfile", GONE)(job),
        ),
        "seccompProfile",
    ),
    "a port of the host": (
        "dev",
        change(*SPOT_BOX, "ports", [{"containerPort": 8080, "hostPort": 80}]),
        "hostPort 80",
    ),
    "a bare autoscaler": (
        "dev",
        change(*CLUSTER, "autoscalerOptions", "securityContext", GONE),
        "container autoscaler securityContext",
    ),
    "a bare submitter": (
        "dev",
        change("spec", "submitterPodTemplate", "spec", "containers", 0, "securityContext", GONE),
        "submitter pod container submitter",
    ),
    # references
    "an account that is not there": (
        "dev",
        change(*SPOT_POD, "serviceAccountName", "nobody"),
        "no ServiceAccount nobody",
    ),
    "a priority of pods that is not there": (
        "dev",
        change(*SPOT_POD, "priorityClassName", "nobody"),
        "no PriorityClass",
    ),
    "a claim that is not there": (
        "dev",
        change(*SPOT_POD, "volumes", [{"name": "models", "persistentVolumeClaim": {"claimName": "nobody"}}]),
        "no PersistentVolumeClaim nobody",
    ),
    "settings that are not there": (
        "dev",
        change(*SPOT_BOX, "envFrom", [{"configMapRef": {"name": "nobody"}}]),
        "no ConfigMap nobody",
    ),
    "keys that are not there": (
        "dev",
        change(*SPOT_BOX, "envFrom", [{"secretRef": {"name": "nobody"}}]),
        "warning",
    ),
    # policy
    "a job that says suspend": ("dev", change("spec", "suspend", False), "would stop a job that runs"),
    "a cluster that says suspend": ("dev", change(*CLUSTER, "suspend", True), "would stop a job that runs"),
    "no deadline": ("dev", change("spec", "activeDeadlineSeconds", GONE), "keeps its nodes"),
    "no retry": ("dev", change("spec", "backoffLimit", 0), "loses its head starts again"),
    "a cluster that stays": (
        "dev",
        change("spec", "deletionStrategy", rules(("DeleteCluster", "SUCCEEDED", 60))),
        "nothing deletes the cluster of a failed job",
    ),
    "a name of its own": ("dev", change("metadata", "name", "generate-mine"), "would be two jobs"),
    "an image by tag": ("dev", change(*SPOT_BOX, "image", "registry.example.com/synthfer:latest"), "no digest"),
    "an image of zeros": (
        "dev",
        change(*SPOT_BOX, "image", "registry.example.com/synthfer@sha256:" + "0" * 64),
        "no digest",
    ),
    "another Ray": ("dev", change(*CLUSTER, "rayVersion", "2.55.0"), "this package needs"),
    "no token": ("dev", change(*CLUSTER, "authOptions", GONE), "written out as token"),
    "work on the head": ("dev", change(*HEAD, "rayStartParams", {}), "a unit on the head"),
    "a GPU for the head": ("dev", change(*HEAD_BOX, "resources", "limits", "nvidia.com/gpu", "1"), "never uses it"),
    "packages at run time": ("dev", change("spec", "runtimeEnvYAML", "pip: [numpy]"), "bake them"),
    "a size left out": ("dev", change(*SPOT_BOX, "resources", "requests", "memory", GONE), "memory: write the same"),
    "a limit above the request": ("dev", change(*SPOT_BOX, "resources", "limits", "cpu", "8"), "cpu: write the same"),
    "a disk without bounds": (
        "dev",
        change(*SPOT_POD, "volumes", [{"name": "tmp", "emptyDir": {}}]),
        "without sizeLimit",
    ),
    "a disk that is too small": (
        "dev",
        change(*SPOT_POD, "volumes", [{"name": "tmp", "emptyDir": {"sizeLimit": "80Gi"}}]),
        "may hold 20Gi more",
    ),
    "a kill before the drain": ("dev", change(*SPOT_POD, "terminationGracePeriodSeconds", 60), "not longer than"),
    "a kill at the default": (
        "dev",
        lambda job: (
            change(*SPOT_POD, "terminationGracePeriodSeconds", GONE)(job),
            change(*SPOT_BOX, "env", [])(job),
        ),
        "30 s is not longer than",
    ),
    "a secret in the clear": (
        "dev",
        change(*SPOT_BOX, "env", [{"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}]),
        "in clear text",
    ),
    "a secret for the dashboard": (
        "dev",
        change("spec", "runtimeEnvYAML", "env_vars: {HF_TOKEN: abc}"),
        "remove the secret from it",
    ),
    "a secret in the words": (
        "dev",
        change("spec", "entrypoint", "python x.py hf_token=abc"),
        "remove the secret from it",
    ),
    # pools and the job's own keys
    "labels that lie": ("dev", change(*SPOT, "labels", "synthfer.io/pool", "h100"), "write the same in both"),
    "a GPU pool that is kept out": ("dev", change(*SPOT_POD, "tolerations", []), "must tolerate"),
    "CPU work let in": (
        "dev",
        change(*CPU, "template", "spec", "tolerations", [{"key": "nvidia.com/gpu", "operator": "Exists"}]),
        "may not tolerate",
    ),
    "a slice that the autoscaler does not see": (
        "dev",
        change(*SPOT_BOX, "resources", "limits", {"cpu": "6", "nvidia.com/mig-1g.10gb": "1"}),
        "does not see a GPU",
    ),
    "GPUs held before there is work": ("dev", change(*SPOT, "replicas", 1), "would be held"),
    "a pool that nobody has": ("dev", change(*SPOT, "labels", "synthfer.io/pool", "other"), "would wait forever"),
    "more workers than GPUs": ("dev", change(*SPOT, "maxReplicas", 3), "4 workers of 1 GPUs"),
    "more than the namespace may": ("dev", change(*SPOT, "maxReplicas", 9), "the ResourceQuota allows 8"),
    "a fixed group of two sizes": ("dev/train", change(*CPU, "maxReplicas", 4), "one size"),
    "groups larger than their job": (
        "dev/train",
        lambda job: [change(*CPU, key, 3)(job) for key in ("replicas", "minReplicas", "maxReplicas")],
        "the groups have 3",
    ),
}


def findings(overlay: str, spoil=None) -> str:
    name = overlay if "/" in overlay else f"{overlay}/generate"
    objects, overlay = digested(rendered(name)), rendered(name.partition("/")[0])
    if spoil:
        spoil(next(one for one in objects if one["kind"] == "RayJob"))
    return "\n".join(map(str, lint(objects, overlay)))


@pytest.mark.parametrize("name", JOBS)
def test_our_manifests_have_no_findings(name):
    assert findings(name) == ""


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_manifest_is_found(what):
    overlay, spoil, said = WRONG[what]
    assert said in findings(overlay, spoil)


def test_every_rule_has_a_manifest_that_breaks_it():
    """None of the rules is silent for all of the wrong manifests above."""
    from synthfer.k8s.lint.context import LintContext

    silent = set(RULES)
    for overlay, spoil, _ in WRONG.values():
        name = overlay if "/" in overlay else f"{overlay}/generate"
        objects, overlay = digested(rendered(name)), rendered(name.partition("/")[0])
        job = next(one for one in objects if one["kind"] == "RayJob")
        spoil(job)
        case = LintContext(job, objects, overlay)
        silent -= {rule for rule in silent if list(rule(case))}
    assert not silent


def config_of(objects) -> dict:
    return next(one for one in objects if one["kind"] == "ConfigMap" and "job.yaml" in one["data"])["data"]


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"nodes": []}, "CPU work may start GPU nodes"),
        ({"nodes": [{"synthfer.io/pool": "tpu"}]}, "no worker group has the labels synthfer.io/pool=tpu"),
        (
            {"nodes": [{"synthfer.io/pool": "in(l4-spot, a1000)"}]},
            "no worker group has the label synthfer.io/pool=a1000",
        ),
        ({"gpus_per_worker": None}, "no GPU yet when the job starts"),
        ({"max_workers": 5}, "5 workers of 1 GPUs are more than the 4 GPUs"),
    ],
)
def test_keys_that_do_not_fit_the_pools_are_found(engine, said):
    objects, overlay = digested(rendered("dev/generate")), rendered("dev")
    data = config_of(objects)
    keys = yaml.safe_load(data["job.yaml"])
    keys["engine"] |= engine
    data["job.yaml"] = yaml.safe_dump(keys)
    assert said in "\n".join(map(str, lint(objects, overlay)))


def test_a_head_is_never_charged_to_gpus():
    """Without taints on the flavors Kueue could give a head a GPU node; with them it takes the plain one."""
    from synthfer.k8s.lint.queue import flavor_of
    from synthfer.k8s.objects import of_kind
    from synthfer.k8s.pods import pods_of

    overlay = rendered("production")
    (queue,) = of_kind(overlay, "ClusterQueue")
    flavors = {one["metadata"]["name"]: one for one in of_kind(overlay, "ResourceFlavor")}
    head = pods_of(next(one for one in rendered("production/generate") if one["kind"] == "RayJob"))[0]
    queue["spec"]["resourceGroups"][0]["flavors"].reverse()
    assert flavor_of(head, queue, flavors)[0] == "cpu"
    for flavor in flavors.values():
        flavor["spec"].pop("nodeTaints", None)
    assert flavor_of(head, queue, flavors)[0] == "h100"


def test_a_missing_class_of_flavors_is_found():
    objects = digested(rendered("production/generate"))
    overlay = [one for one in rendered("production") if one["metadata"]["name"] not in ("a100",)]
    assert "there is no ResourceFlavor a100" in "\n".join(map(str, lint(objects, overlay)))
    overlay = [one for one in rendered("production") if one["kind"] != "ClusterQueue"]
    assert "there is no ClusterQueue synthfer" in "\n".join(map(str, lint(objects, overlay)))


@pytest.mark.parametrize(("text", "number"), [("500m", 0.5), ("1Gi", 2**30), ("2k", 2000), (3, 3), ("1.5G", 1.5e9)])
def test_quantities(text, number):
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["four", "1gi", "", "1 Gi", None])
def test_what_is_no_quantity_says_so(text):
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity(text)


def test_the_command_says_all_that_is_wrong_at_once(tmp_path):
    """The zeros of an unset digest are an error, with the overlay's objects taken from the folder above."""
    from tests.k8s.overlays import copied

    job = copied(tmp_path) / "overlays/dev/generate"
    config = job / "job.yaml"
    config.write_text(config.read_text().replace("max_workers: 4", "max_workers: 64"))
    with pytest.raises(ValueError, match="2 problems") as error:
        commands.check(commands.JobConfig(job=str(job)), None)
    assert "no digest" in str(error.value) and "64 workers" in str(error.value)


def test_a_folder_without_a_job_is_refused():
    with pytest.raises(ValueError, match="no RayJob in it"):
        commands.JobConfig(job="k8s/queues").objects()
    with pytest.raises(ValueError, match="does not render"):
        commands.JobConfig(job="k8s/nowhere").objects()
