"""Age estimation and gender classification from faces, in JAX and Flax."""
