"""This room holds structural masks: packed bits that are made, numbered, stored and compared.

It must never import a structure, an op or anything that is trained.
"""
