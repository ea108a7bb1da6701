"""Scores a network on a split and writes what a run leaves.

May import `inference` and what lies below it; `artifacts`, which the report reads a
workdir by, never jax.
"""
