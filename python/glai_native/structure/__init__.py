"""What is frozen: the input projection and the path selector, and how they are trained until the pattern settles.

It must never import ops or anything that reads gates to train numbers.
"""
