"""Samples in, an estimator out: one folder a solver (dual, statistics, sgd) behind one contract, `solution.py`.

It must never import a whole model; what a solution does to one is decided in training.
"""
