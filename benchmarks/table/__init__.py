"""The paper's Table 2 on this machine: run as `python -m benchmarks.table` from a checkout."""
