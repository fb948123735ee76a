"""Frames in, pictures and files out. Nothing here depends on a network."""
