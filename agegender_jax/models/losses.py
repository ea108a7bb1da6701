"""Losses per example: no reduction, no weights, no configuration.

Each maps logits float32 [B, K] and labels [B] to losses float32 [B]. Where a
label is unknown (UNKNOWN = -1) the loss is finite and meaningless: the caller
masks it.
"""

import jax
import jax.numpy as jnp
import optax


def squared_error(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes (prediction - age)^2, years^2 (seeds 000, 001).

  Args:
    logits: float32 [B, 1], years.
    age: float32 [B], years.

  Returns:
    float32 [B].
  """
  return jnp.square(logits[:, 0] - age)


def absolute_error(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes |prediction - age|, years (seed 002).

  Args:
    logits: float32 [B, 1], years.
    age: float32 [B], years.

  Returns:
    float32 [B].
  """
  return jnp.abs(logits[:, 0] - age)


def binary_cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Computes the sigmoid cross-entropy, nats.

  Args:
    logits: float32 [B, 1], log-odds of class 1.
    label: int32 [B], 0 or 1.

  Returns:
    float32 [B].
  """
  target = jnp.maximum(label, 0).astype(logits.dtype)
  return optax.sigmoid_binary_cross_entropy(logits[:, 0], target)


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Computes the softmax cross-entropy, nats.

  Args:
    logits: float32 [B, K].
    label: int32 [B], in [0, K).

  Returns:
    float32 [B].
  """
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.clip(label, 0, logits.shape[1] - 1)
  )


def year_cross_entropy(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes the cross-entropy over one class a year (DEX, Rothe 2015).

  Args:
    logits: float32 [B, K], class k is the age of k years.
    age: float32 [B], years; ages past the last class count as the last.

  Returns:
    float32 [B].
  """
  return cross_entropy(logits, jnp.floor(age).astype(jnp.int32))
