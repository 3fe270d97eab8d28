"""Labelling a video: from a source through a session to the outputs; what was made how; going on with it."""
