"""Convolution and max-pooling that are fast on every backend.

May import `runtime`. Only the operations that `models.layers` wraps leave it.
"""
