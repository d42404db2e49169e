"""This folder solves ridge regression on integer features, from sums that are exact to the bit.

It must draw nothing without a fixed seed, and round nothing before the sums are whole.
"""
