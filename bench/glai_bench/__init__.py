"""The benchmarks of ``glai_native``: what is timed, against what, and the pages that say how it came out.

The package is a user of ``glai_native``, which never imports it: the command line finds ``glai bench`` by its entry
point (:mod:`glai_bench.command`).
"""
