"""The gated ops on a GPU, against torch's best form there; imports the grid and the forms of :mod:`glai_bench.ops`."""
