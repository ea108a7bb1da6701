"""The training loop: state, steps, optimizers, augmentation, log.

May import `report` and what lies below it. `trainer.train_and_evaluate` leaves it.
"""
