"""The solvers against the MLP that they replace; never imports :mod:`glai_bench.claims`, which builds upon it."""
