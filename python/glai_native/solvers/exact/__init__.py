"""This folder is the exact head on integer features: sums over samples, exact to the bit, and the solution of them.

It must draw nothing without a fixed seed, and round nothing before the sums are whole.
"""
