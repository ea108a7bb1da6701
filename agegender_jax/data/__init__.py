"""From raw images to batches: NumPy only, never jax.

May import schema, errors, files and config. `source.create_source` opens a split,
`pipeline` makes its batches, `images.prepare` treats an image as training does.
"""
