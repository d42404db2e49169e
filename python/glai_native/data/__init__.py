"""This room holds what comes in: arrays, labelled data, and the one check of samples and targets.

It must import nothing else of this package.
"""
