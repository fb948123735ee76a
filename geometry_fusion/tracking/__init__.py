"""SAM2 with a memory: from frames and prompts to masks."""
