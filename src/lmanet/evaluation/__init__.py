"""Metrics of accuracy and steadiness over video, the evaluation run, and its reports.

Nothing is imported here. The metrics are in `lmanet.evaluation.metrics`, `temporal` and `torchmetrics`.
"""
