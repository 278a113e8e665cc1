"""The most that options of jobs may ask for: far beyond real use, and below what hangs, takes all memory or dies.

Numbers of several options that meet in one array are checked by `check_memory` where they meet.
"""

MAX_ROWS = 10**9
"""Rows of a plan: a thousand GPUs at a hundred pictures a second each need three hours for them."""
MAX_UNIT_ROWS = 100_000
"""Rows of a unit, which a worker holds at once with their pictures; shards should stay below 256 MB."""
MAX_BATCH = 2**16
"""Rows that go through a network, or that a worker holds, at once."""
MAX_THREADS = 1024
"""Threads or CPUs of one worker: no machine has more cores, and torch dies of 10^6 threads (signal 11)."""
MAX_GPUS = 64
"""GPUs of one worker, which is one process on one machine."""
MAX_WORKERS = 100_000
MAX_RETRIES = 10_000
MAX_STEPS = 10**8
"""Steps of a training, and steps between two of its events."""
MAX_EPOCHS = 10**5
MAX_REPLICATES = 10**5
"""Draws of a bootstrap, each of which is held with its counts: intervals are stable from some thousands on."""
MAX_PERMUTATIONS = 10**6
MAX_KEPT = 10_000
"""Candidates that are kept for each row."""
MAX_SIDE = 8192
"""Pixels of a side of a picture that is made or read."""
MAX_NETWORK_SIDE = 1024
"""Pixels of a side of what a network of faces takes or makes."""
MAX_WIDTH = 4096
"""Channels or numbers of a layer."""
MAX_LAYERS = 128
MAX_WAIT_S = 3600.0
MAX_MARGIN = 10.0
"""What may be added around a face, as a share of it: more than that is no picture of a face."""

MAX_ARRAY_BYTES = 256 * 2**30
"""Memory that one array may ask for: what the largest GPUs have."""
MAX_BATCH_BYTES = 16 * 2**30
"""Memory of the pictures of one batch, which a worker holds beside all else."""


def check_memory(what: str, size: float, change: str, most: float = MAX_ARRAY_BYTES) -> None:
    """`ValueError` where `what` needs more than `most` bytes; `change` says which options to lower."""
    if size > most:
        raise ValueError(f"{what} would need {size / 1e9:,.0f} GB, more than {most / 1e9:,.0f} GB: {change}")
