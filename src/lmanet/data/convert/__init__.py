"""Polygons and masks of labelling tools to folders of labelled videos (`lmanet.data.folder`)."""
