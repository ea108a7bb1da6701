"""The training loop: state, steps, optimizers, augmentation, log.

May import `report` and what lies below it.
"""
