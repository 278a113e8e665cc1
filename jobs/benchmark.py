"""What synthfer costs and gains, measured: `python jobs/benchmark.py generate [key=value ...] --json`."""

from synthfer.cli import Command, run_commands
from synthfer.engine import benchmark

if __name__ == "__main__":
    run_commands(
        {
            "generate": Command(
                benchmark.BenchmarkConfig,
                benchmark.generate,
                about="The generation job against a bare loop, simulated devices, a plan of 10^8 rows, a resume of "
                "100,000 units, and the usual script.",
                example="python jobs/benchmark.py generate --json parts=[pipeline,busy]",
            ),
        },
        about="Measures side by side in one run; every figure comes with machine, versions and commit.",
    )
