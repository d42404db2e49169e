"""Random calls of everything native, right and wrong ones, in memory that notices a step past its bounds.

``python -m fuzz --calls 1000000 --seed 0``, in ``tests``, runs a million; see ``python -m fuzz --help``.
"""
