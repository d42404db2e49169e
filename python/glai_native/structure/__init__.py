"""This room holds what is frozen: input projection and path selector, and their training until the pattern settles.

It must never import ops or anything that reads gates to train numbers.
"""
