"""This room is the closed form over samples: ridge regression by the path kernel.

It must never import another solver.
"""
