"""Video in and out: files, image folders and cameras to frames; frames to videos and label maps."""

from lmanet.video.frame import Frame, Source, SourceInfo
from lmanet.video.outputs import Outputs, default_output, open_sinks
from lmanet.video.pipeline import run_pipeline
from lmanet.video.sink import VideoSink
from lmanet.video.source import open_source
from lmanet.video.stills import ImageSink, LabelSink

__all__ = [
    "Frame",
    "ImageSink",
    "LabelSink",
    "Outputs",
    "Source",
    "SourceInfo",
    "VideoSink",
    "default_output",
    "open_sinks",
    "open_source",
    "run_pipeline",
]
