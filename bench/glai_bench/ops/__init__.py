"""The ops on a CPU, against torch's best form; never imports :mod:`glai_bench.cuda`, which builds upon it."""
