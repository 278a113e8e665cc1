"""What operators see: alerts fire when they should and not otherwise, and no query asks for what nobody measures."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import ray
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from synthfer.engine.monitoring import GAUGES, TAGS
from synthfer.k8s.objects import of_kind, render
from synthfer.k8s.pods import pods_of
from tests.k8s import promtool
from tests.k8s.overlays import JOBS, K8S, job_of, rendered
from tests.metrics_page import page_with
from tests.ray_sessions import ROOT, start_job

TESTS = ROOT / "tests/k8s/alerts_test.yaml"
RUNBOOK = K8S / "README.md"
OURS = {f"ray_{name}" for name in GAUGES}
KUBERAY = {"kuberay_job_deployment_status"}
"""Of KubeRay's operator, which does not run here: its name and labels are those of KubeRay 1.7's metrics reference."""

SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\{[^}]*\}")


def groups() -> list[dict[str, Any]]:
    """The rules as Prometheus gets them."""
    (rule,) = of_kind(render(K8S / "monitoring"), "PrometheusRule")
    return rule["spec"]["groups"]


RULES = {rule["alert"]: rule for group in groups() for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    """The page as Grafana's sidecar gets it."""
    (one,) = of_kind(render(K8S / "monitoring"), "ConfigMap")
    assert one["metadata"]["labels"] == {"grafana_dashboard": "1"}
    (text,) = one["data"].values()
    return json.loads(text)


def queries() -> list[str]:
    """All queries of the page, for all jobs."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [query.replace("$cluster", ".*") for query in shown]


def selectors() -> Iterator[tuple[str, str]]:
    """Name and text of every choice of series in the rules and on the page. Each says which namespace it means."""
    for query in [*queries(), *(rule["expr"] for rule in RULES.values())]:
        for match in SELECTOR.finditer(query):
            yield match[1], match[0]


def test_the_rules_are_rules(tmp_path):
    assert promtool.check(tmp_path, groups()) == ""
    wrong = groups()
    wrong[0]["rules"][0]["expr"] = "sum by (pod (ray_resources)"
    assert "parse error" in promtool.check(tmp_path, wrong)


def test_each_alert_fires_when_it_should_and_not_otherwise(tmp_path):
    assert promtool.failures(tmp_path, groups(), TESTS) == ""
    tested = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    for name in RULES:
        expected = [bool(case["exp_alerts"]) for case in tested if case["alertname"] == name]
        assert {True, False} <= {*expected}, f"{name} is not shown firing and silent"


WRONG = {
    "never": lambda rule: rule.update(expr=f"({rule['expr']}) > 1e9"),
    "always": lambda rule: rule.update(expr="vector(1)"),
    "too early": lambda rule: rule.pop("for", None),
    "for other teams, too": lambda rule: rule.update(expr=re.sub(r'namespace="synthfer",? ?', "", rule["expr"])),
    "without its place": lambda rule: rule["annotations"].update(runbook="k8s/README.md"),
}


@pytest.mark.parametrize("fires", WRONG)
def test_an_alert_that_fires_wrongly_is_found(tmp_path, fires):
    spoilt = groups()
    for rule in spoilt[0]["rules"]:
        WRONG[fires](rule)
    failed = promtool.failures(tmp_path, spoilt, TESTS)
    at_once = {name for name, rule in RULES.items() if "for" not in rule} if fires == "too early" else set()
    assert {name for name in RULES if f"alertname: {name}," in failed} == RULES.keys() - at_once


def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do():
    anchors = {_anchor(line) for line in RUNBOOK.read_text().splitlines() if line.startswith("#")}
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}, name
        place, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (ROOT / place, anchor in anchors) == (RUNBOOK, True), f"{name}: no heading for #{anchor} in {RUNBOOK}"


def _anchor(heading: str) -> str:
    """As GitHub makes one of a heading."""
    return re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def test_the_page_is_whole(tmp_path):
    page = dashboard()
    names = [f"query:{i}" for i in range(len(queries()))]
    recorded = [{"record": name, "expr": query} for name, query in zip(names, queries(), strict=True)]
    assert promtool.check(tmp_path, [{"name": "page", "rules": recorded}]) == ""
    cells = [cell for panel in page["panels"] for cell in _cells(**panel["gridPos"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"])
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in page["panels"])
    variables = {variable["name"] for variable in page["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(page["panels"]))) == variables
    assert {name for name, _ in selectors()} >= OURS, "a metric of ours that nobody looks at"


def _cells(x: int, y: int, w: int, h: int) -> list[tuple[int, int]]:
    return [(column, row) for column in range(x, x + w) for row in range(y, y + h)]


@pytest.fixture(scope="module")
def measured(ray_session) -> set[str]:
    """The names of what Ray measures: on this machine, with a GPU's driver, and in its autoscaler."""
    from ray.autoscaler._private.prom_metrics import AutoscalerPrometheusMetrics
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    port = ray.nodes()[0]["MetricsExportPort"]
    seen = page_with(port, lambda page: {"ray_resources", "ray_node_disk_free"} <= page.keys())
    only_with_a_driver = {f"ray_{name}" for name in METRICS_GAUGES if "gpu" in name}
    scaling = generate_latest(AutoscalerPrometheusMetrics("session").registry).decode()
    return {*seen, *only_with_a_driver, *(metric.name for metric in text_string_to_metric_families(scaling))}


def unknown(names: set[str], measured: set[str]) -> set[str]:
    return names - measured - OURS - KUBERAY


def test_no_query_asks_for_what_nobody_measures(measured):
    assert unknown({name for name, _ in selectors()}, measured) == set()
    assert unknown({"ray_node_disk_fre", "ray_synthfer_images"}, measured) == {
        "ray_node_disk_fre",
        "ray_synthfer_images",
    }


def test_every_query_says_which_namespace():
    """Other teams' Ray clusters send the same names to the same Prometheus."""
    for _, selector in selectors():
        assert 'namespace="synthfer"' in selector
    for query in [*queries(), *(rule["expr"] for rule in RULES.values())]:
        assert not _without_selector(query)
    assert _without_selector("sum by (ray_io_cluster) (ray_resources) / ray_node_mem_total{}") == ["ray_resources"]


def _without_selector(query: str) -> list[str]:
    """Names of metrics that are asked for wherever they come from."""
    plain = re.sub(r"\bby \([^)]*\)|\{[^}]*\}", lambda match: match[0][0] + "}" if match[0][0] == "{" else "", query)
    return re.findall(r"\b(?:ray|autoscaler|kuberay)_\w+\b(?!\{)", plain)


@pytest.mark.parametrize("name", JOBS)
def test_monitors_find_the_pods_of_a_job_and_their_ports(name):
    monitors = of_kind(render(K8S / "monitoring"), "PodMonitor")
    for pod in (pod for pod in pods_of(job_of(name)) if pod.role != "submitter"):
        labels = pod.manifest["metadata"]["labels"]
        wanted = [one["spec"]["selector"]["matchLabels"] for one in monitors]
        (monitor,) = [one for one, those in zip(monitors, wanted, strict=True) if those.items() <= labels.items()]
        ports = {port["name"] for one in pod.manifest["spec"]["containers"] for port in one.get("ports", ())}
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] in ports
            taken = {one["targetLabel"] for one in endpoint["relabelings"]}
            assert taken == {"ray_io_cluster", "pool"} and not taken & {*TAGS}
        environment = {one["name"]: one.get("value") for one in pod.manifest["spec"]["containers"][0]["env"]}
        assert environment["RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE"] == "1", "Ray would say that the disk is empty"


def test_a_pool_is_named_alike_by_its_pods_and_its_nodes():
    """GPUs are counted by the label of Prometheus' targets, money by that of Ray's nodes."""
    for pod in pods_of(job_of("production/generate")):
        if pod.role == "worker":
            pool = pod.manifest["metadata"]["labels"]["synthfer.io/pool"]
            assert f"synthfer.io/pool={pool}" in next(word for word in pod.start if word.startswith("--labels"))


def test_monitoring_is_part_of_production_and_the_operator_tells_of_failed_jobs():
    kinds = {one["kind"] for one in rendered("production")}
    assert {"PodMonitor", "PrometheusRule"} <= kinds
    values = yaml.safe_load((K8S / "operators/kuberay-values.yaml").read_text())
    assert values["metrics"]["serviceMonitor"]["enabled"] is True


@pytest.mark.slow
def test_in_a_real_run_every_query_finds_something(gpu_cluster, tmp_path):
    """A real Prometheus reads a real run; left out is what needs a driver of NVIDIA, KubeRay or another job."""
    absent = KUBERAY | {
        "ray_node_gpus_utilization",
        "autoscaler_pending_nodes",
        *(name for name in OURS if "steps" in name or "blocks" in name),
    }
    head, worker = gpu_cluster.head_node, next(iter(gpu_cluster.worker_nodes))
    labels = {"namespace": "synthfer", "ray_io_cluster": "run"}
    targets = {
        head.metrics_export_port: labels | {"pod": "head"},
        worker.metrics_export_port: labels | {"pod": "worker", "pool": "l4-spot"},
    }
    words = ("generator.name=simulated", "generator.failed_share=0.03", "plan.total=7000000", "plan.unit_size=16")
    engine = ("engine.gpus_per_worker=1", "engine.prices={l4-spot: 2.5}")
    with promtool.prometheus(tmp_path, targets) as server:
        idle = server.wait_for(RULES["GpuIdle"]["expr"])
        assert [one["metric"] for one in idle] == [{"pod": "worker", "pool": "l4-spot", "ray_io_cluster": "run"}]
        job = start_job("generate.py", f"out={tmp_path / 'd'}", *words, *engine, RAY_ADDRESS=gpu_cluster.address)
        try:
            server.wait_for("ray_synthfer_failed_share and ray_synthfer_spend")
            for name, selector in selectors():
                assert name in absent or server.wait_for(selector), selector
            assert not server.find(RULES["GpuIdle"]["expr"])
            assert server.wait_for(RULES["FailingShare"]["expr"])
            for query in queries():
                assert absent & {match[1] for match in SELECTOR.finditer(query)} or server.find(query), query
            assert not server.find(RULES["DiskFull"]["expr"])
        finally:
            job.terminate()
            print(job.communicate(timeout=240)[1][-4000:])  # what pytest shows of a test that failed
        server.wait_for("absent_over_time(ray_synthfer_units_planned[5s])")  # what has ended cannot stand still
