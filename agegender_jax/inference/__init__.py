"""From images to predictions: the network with its variables, photos, rows.

May import `models`, `scoring`, `data` and `runtime`; never training.
"""
