"""From names and files to networks: SAM2, MUSt3R, mergers, checkpoints, trackers."""
