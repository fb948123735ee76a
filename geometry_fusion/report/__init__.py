"""Pages, figures and reconstructions that people look at."""
