"""Layers and rescalings that know no network and no method."""
