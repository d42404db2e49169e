"""The native loop: AdamW on mini-batches, no Python between the steps.

It must never import another solver.
"""
