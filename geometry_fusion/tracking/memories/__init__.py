"""Memory strategies: what one object reads from its past (docs/memory.md).

Pure decisions, without networks: they see numbers, boxes and low-resolution masks. Time is the
frame number, negated while tracking backwards, so that every strategy only knows forwards.
"""
