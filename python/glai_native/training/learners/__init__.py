"""This folder holds scikit-learn's estimators: one ``fit`` trains structure and numbers.

It must never import the command line or federated learning.
"""
