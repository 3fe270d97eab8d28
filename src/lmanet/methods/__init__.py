"""How a single-frame network labels a video: one file a method."""
