"""Benchmarks: every figure with its peers, timed in turn in the same run."""
