"""The only package that knows Ray: sessions, and the jobs that run on them."""

import os

# Ray Data asks the autoscaler for twice the workers that it has, by CPUs and GPUs alone, so on any node, however
# expensive. Waiting workers have asked already, with their node labels. Utilisation never reaches 1000, so these
# thresholds turn Ray Data's own requests off.
for _kind in ("CPU", "GPU", "MEMORY", "OBJECT_STORE_MEMORY"):
    os.environ.setdefault(f"RAY_DATA_DEFAULT_CLUSTER_SCALING_UP_{_kind}_UTIL_THRESHOLD", "1000")
