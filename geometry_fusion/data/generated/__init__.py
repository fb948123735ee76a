"""Worlds that a training process draws for itself, on its own device, without files."""
