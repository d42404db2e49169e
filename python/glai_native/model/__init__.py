"""This room holds GLAI, both halves: computed, saved, merged, pruned, grown, put in place of an MLP.

It must never import what trains it.
"""
