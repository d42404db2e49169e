"""The main job, end to end: structure, capture, exact conversion, training, re-training, merging.

``steps`` runs it, ``figures`` holds what came out, ``report`` shows it.
"""
