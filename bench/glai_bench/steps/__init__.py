"""A training step against the same step in PyTorch, on a CPU and, by :mod:`glai_bench.cuda`'s clock, on a GPU."""
