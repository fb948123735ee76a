"""Data: scenes on disk, readers of datasets and captures, annotations, rooms, frame sampling."""
