"""The paper's tables and figures, each beside controls that the paper lacks: what `lmanet reproduce` runs.

An experiment (`experiments.py`) is a plan of cells (`cells.py`): trainings, evaluations and pictures, as plain values.
Cells are run once and kept in a store by the hash of their configuration (`store.py`, `work.py`, `schedule.py`); tables
and figures are made of their results (`report.py`).
"""
