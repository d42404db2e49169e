"""This folder is ridge regression on integer features: sums over samples that are exact to the bit, and their solution.

It must draw nothing without a fixed seed, and round nothing before the sums are whole.
"""
