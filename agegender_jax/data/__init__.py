"""From raw pictures to batches. NumPy only: nothing here imports jax."""
