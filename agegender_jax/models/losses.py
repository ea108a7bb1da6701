"""Losses per example: no reduction, no weights, no configuration.

Each maps logits float32 [B, K] and labels [B] to losses float32 [B]; `age` is
float32 in years. Where a label is unknown (UNKNOWN = -1) the loss is finite and
meaningless: the caller masks it.
"""

import math

import jax
import jax.numpy as jnp
import optax

LDL_DEVIATION = 2.0  # Years, of the label distribution.


def squared_error(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes (prediction - age)^2, years^2; logits [B, 1] are years."""
  return jnp.square(logits[:, 0] - age)


def absolute_error(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes |prediction - age|, years; logits [B, 1] are years."""
  return jnp.abs(logits[:, 0] - age)


def gaussian(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes -log of a normal density (Nix & Weigend 1994).

  Args:
    logits: float32 [B, 2], mean in years and log of the variance in years^2.
    age: float32 [B], years.

  Returns:
    float32 [B], nats.
  """
  mean, log_variance = logits[:, 0], logits[:, 1]
  error = jnp.square(age - mean) * jnp.exp(-log_variance)
  return 0.5 * (math.log(2 * math.pi) + log_variance + error)


def binary_cross_entropy(
  logits: jax.Array, label: jax.Array, smoothing: float = 0.0
) -> jax.Array:
  """Computes the sigmoid cross-entropy, nats.

  Args:
    logits: float32 [B, 1], log-odds of class 1.
    label: int32 [B], 0 or 1.
    smoothing: s; the targets are s / 2 and 1 - s / 2.

  Returns:
    float32 [B].
  """
  target = jnp.maximum(label, 0).astype(logits.dtype)
  target = target * (1 - smoothing) + smoothing / 2
  return optax.sigmoid_binary_cross_entropy(logits[:, 0], target)


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Computes the softmax cross-entropy of classes, int32 [B] in [0, K), nats."""
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.clip(label, 0, logits.shape[1] - 1)
  )


def year_cross_entropy(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes the cross-entropy over one class per year (DEX, Rothe 2015).

  Class k is the age of k years; ages past the last class count as the last.
  """
  return cross_entropy(logits, jnp.floor(age).astype(jnp.int32))


def interval_likelihood(logits: jax.Array, low: jax.Array, high: jax.Array):
  """Computes -log of the softmax mass of the years low to high, both included.

  One known year is its own cross-entropy; a group is the probability of its
  years, so that ages known in years and in groups teach the same head.

  Args:
    logits: float32 [B, K], class k is the age of k years.
    low: int32 [B], in [0, K).
    high: int32 [B], in [low, K).

  Returns:
    float32 [B], nats.
  """
  years = jnp.arange(logits.shape[1])[None]
  # An unknown interval would have no year, and an infinite loss.
  low, high = jnp.maximum(low, 0)[:, None], jnp.maximum(high, 0)[:, None]
  allowed = jnp.where((years >= low) & (years <= high), logits, -jnp.inf)
  return jax.nn.logsumexp(logits, axis=1) - jax.nn.logsumexp(allowed, axis=1)


def label_distribution(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes KL(Gaussian around the age || softmax) + smooth L1 of the mean.

  Label distribution learning (Gao et al. 2018, DLDL-v2, with a smooth L1 of
  one year): the Gaussian is taken at the K whole years and normalised.
  """
  years = jnp.arange(logits.shape[1], dtype=logits.dtype)
  distances = jnp.square((years[None] - age[:, None]) / LDL_DEVIATION)
  log_label = jax.nn.log_softmax(-0.5 * distances)
  log_found = jax.nn.log_softmax(logits)
  divergence = (jnp.exp(log_label) * (log_label - log_found)).sum(axis=1)
  return divergence + optax.huber_loss(jnp.exp(log_found) @ years, age)


def coral(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes the sum of the binary cross-entropies of age > k (Cao et al. 2020).

  Args:
    logits: float32 [B, K], log-odds of age > 0, > 1, ..., > K - 1, from one
      weight vector and K biases.
    age: float32 [B], years.

  Returns:
    float32 [B], nats.
  """
  return _threshold_losses(logits, age).sum(axis=1)


def corn(logits: jax.Array, age: jax.Array) -> jax.Array:
  """Computes -log of the year's probability by the chain rule (Shi et al. 2021).

  The sum over k of the binary cross-entropy of age > k among those with
  age >= k. The paper divides a batch's sum by its number of terms.

  Args:
    logits: float32 [B, K], log-odds of age > k given age >= k.
    age: float32 [B], years.

  Returns:
    float32 [B], nats.
  """
  reached = jnp.floor(age)[:, None] >= jnp.arange(logits.shape[1])[None]
  return jnp.where(reached, _threshold_losses(logits, age), 0).sum(axis=1)


def _threshold_losses(logits, age):
  older = jnp.floor(age)[:, None] > jnp.arange(logits.shape[1])[None]
  return optax.sigmoid_binary_cross_entropy(logits, older.astype(logits.dtype))
