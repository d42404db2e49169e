"""This room is the native loop: AdamW on mini-batches, without Python between the steps.

It must never import another solver.
"""
