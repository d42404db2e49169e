"""This room holds what is frozen: input projection, path selector and integer features, and how they come to settle.

It must never import anything that is trained.
"""
