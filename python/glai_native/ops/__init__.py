"""This room holds the products that read gates, each op from its checks in Python to its kernel and its gradients.

It must never import a structure or anything that is trained.
"""
