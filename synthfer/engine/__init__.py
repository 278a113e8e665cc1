"""The only package that knows Ray: sessions, and the jobs that run on them."""

import os

# Ray Data asks an autoscaler for twice the workers that it has, by CPUs and GPUs alone: on any node, however dear, and
# it would keep as many. Workers that wait for room have asked already, with their labels. No use is more than all.
for _kind in ("CPU", "GPU", "MEMORY", "OBJECT_STORE_MEMORY"):
    os.environ.setdefault(f"RAY_DATA_DEFAULT_CLUSTER_SCALING_UP_{_kind}_UTIL_THRESHOLD", "1000")
