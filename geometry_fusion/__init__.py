"""3AM: geometry-aware video segmentation. See README.md and docs/ for the map of the package."""

__version__ = "0.4.0"
