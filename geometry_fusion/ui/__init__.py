"""Windows: picking prompts and watching a run."""
