"""What a process runs on: devices, allocator, compilation cache, checkpoints.

May import `config` and what lies below it. The other rooms take devices and
their axis from here only.
"""
