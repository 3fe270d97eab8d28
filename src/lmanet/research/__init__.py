"""Benchmarks and the paper's experiments: evidence, not product. Nothing of the product imports it."""
