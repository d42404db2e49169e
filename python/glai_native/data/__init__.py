"""What comes in: arrays, labelled data, and the one check of samples and targets.

It must never import nothing of this package but the machine.
"""
