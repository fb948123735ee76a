"""Measures of video segmentation, on arrays (masks.py, scores.py) and on folders (folders.py)."""
