"""From raw images to batches. NumPy only: nothing here imports jax."""
