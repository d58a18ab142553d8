"""What the benchmarks and acceptance scripts share.  Python 3 standard library only."""
