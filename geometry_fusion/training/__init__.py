"""Training: one loop for all tasks. A task brings the model, the batches, the losses and the
validation; each task's module describes its recipe.
"""
