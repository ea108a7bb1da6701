"""Faces that are drawn, so that everything runs without a download.

NumPy and Pillow only: `person` draws who it is, `painting` paints them, `faces`
takes the photograph.
"""
