"""What benchmark.py is made of: see docs/performance.md."""
