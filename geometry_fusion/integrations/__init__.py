"""Functions that other programs call; each module is for one program, and needs its package."""
