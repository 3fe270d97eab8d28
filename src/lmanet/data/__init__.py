"""Labelled clips: CamVid and the synthetic street drive."""
