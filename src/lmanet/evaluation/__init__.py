"""Metrics of accuracy and steadiness over video, the evaluation run, and its reports."""
