"""Structural masks: packed bits, made, numbered, stored, compared.

It must never import a structure, an op or anything that is trained.
"""
