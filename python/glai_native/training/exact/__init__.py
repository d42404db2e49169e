"""This folder holds scikit-learn's estimators over integer sums: they learn, forget and merge, the same to the bit.

It must never import the command line or federated learning.
"""
