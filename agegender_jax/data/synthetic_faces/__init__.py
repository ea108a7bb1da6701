"""Faces that are drawn, so that everything runs without a download.

NumPy and Pillow only; `faces` draws, the rest is what a face is made of.
"""
