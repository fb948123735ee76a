"""Data: scenes on disk, synthetic rooms, frame sampling."""
