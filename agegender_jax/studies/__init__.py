"""More than one run, or a data set itself: sweeps and audits.

May import everything but `main`.
"""
