"""The command `benchmark`: what is measured, and what it is compared with."""

from synthfer.benchmarks import audit, generation, sources, training
from synthfer.cli import Command

ABOUT = "Measures side by side in one run; every figure comes with machine, versions and commit."
COMMANDS = {
    "generate": Command(
        generation.BenchmarkConfig,
        generation.generate,
        about="The generation job against a bare loop, simulated devices, a plan of 10^8 rows, a resume of "
        "100,000 units, and the usual script; the editor, the VAE-GAN and the GAN against bare loops, and what "
        "detection, edit, restoration and paste cost.",
        example="python jobs/benchmark.py generate --json parts=[pipeline,busy]",
    ),
    "sources": Command(
        sources.SourcesConfig,
        sources.measure,
        about="The ingest job against a plain loop that reads, decodes and hashes the same pictures.",
        example="python jobs/benchmark.py sources --json",
    ),
    "audit": Command(
        audit.AuditBenchmark,
        audit.measure,
        about="The audit's scans against plain matrix products, its memory under a cap, and what it finds of "
        "planted copies at which rate of false alarms.",
        example="python jobs/benchmark.py audit --json faces=out/fer2013 parts=[found]",
    ),
    "train": Command(
        training.TrainingBenchmark,
        training.measure,
        about="The training job's steps against plain torch, alone and by DDP, its input against plain "
        "decoding, scoring in one pass against one for each network, and the operations of the networks.",
        example="python jobs/benchmark.py train --json parts=[steps] classifier=small batch=64",
    ),
}
