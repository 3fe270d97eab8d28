"""lmanet: any single-frame semantic segmentation network as a video segmentation network."""
