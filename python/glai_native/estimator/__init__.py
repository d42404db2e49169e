"""What is trained: the linear model over paths, its output directions, and its weights moved between structures.

It must never import a solver or a whole model.
"""
