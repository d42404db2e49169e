"""This room is the closed form over unknowns: sums over samples that add up, are taken out again, and are solved.

It must never import another solver.
"""
