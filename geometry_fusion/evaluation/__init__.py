"""Scoring whole datasets, arm against arm."""
