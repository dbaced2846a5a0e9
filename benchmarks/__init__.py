"""Benchmarks of glmmnet: accuracy, speed and memory, beside other programs on the same rows; see README.md."""
