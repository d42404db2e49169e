"""This room turns samples into an estimator: one folder a solver (dual, statistics, sgd), one contract, `solution.py`.

It must never import a whole model; what a solution does to one is decided in training.
"""
