"""What `benchmarks/performance.py` measures: the data, both sides of each row, and how time and memory are taken."""
