"""This room trains by one call: fit, retrain, scikit-learn's estimators, torchrun.

It must never import the command line or federated learning.
"""
