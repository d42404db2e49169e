"""This room holds what is trained: a linear model over paths, output directions, and weights moved between structures.

It must never import a solver or a whole model.
"""
