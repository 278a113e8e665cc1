"""Asks Ray which nodes some selectors take, by work that it runs there or not, and prints what we think beside it."""

import json

import ray

from synthfer.engine.cluster import NodeConfig, session

SELECTORS = (
    {"pool": "a100"}, {"pool": "!a100"}, {"pool": "in(a100,x)"}, {"pool": "in(a100, cpu)"}, {"pool": "!in(a100, x)"},
    {"pool": "a100", "kind": "dear"}, {"pool": "cpu", "kind": "dear"}, {"kind": "!dear"}, {"internal": "in"},
)  # fmt: skip
ROOMS = ([], [{"pool": "cpu"}], [{"pool": "a100"}, {"pool": "!cpu"}], [{"pool": "nowhere"}])


def nothing() -> None:
    pass


def main() -> None:
    """Prints (selector, node) pairs as Ray has them and as we do, and CPUs and GPUs of some alternatives."""
    ray.init(log_to_driver=False, logging_level="ERROR")
    nodes = {node["Labels"]["name"]: node["Labels"] for node in ray.nodes()}
    task, wanted = ray.remote(num_cpus=0)(nothing), [NodeConfig(nodes=[selector]) for selector in SELECTORS]
    calls = {
        task.options(label_selector=one.placement["label_selector"] | {"name": node}).remote(): (number, node)
        for number, one in enumerate(wanted)
        for node in nodes
    }
    ours = [(number, node) for number, one in enumerate(wanted) for node in nodes if one.matches(nodes[node])]
    done, _ = ray.wait(list(calls), num_returns=len(ours), timeout=240)
    more, _ = ray.wait(list(calls), num_returns=len(calls), timeout=3)
    rooms = []
    for alternatives in ROOMS:
        with session(NodeConfig(nodes=alternatives)) as resources:
            rooms.append((resources.cpus, resources.gpus))
    print(json.dumps([sorted(calls[call] for call in {*done, *more}), sorted(ours), rooms]))


if __name__ == "__main__":
    main()
