"""The main job, end to end, and what it is for: learning more classes, forgetting samples, merging parties.

``steps`` runs it, with the loop of ``trainer``; ``learn_forget_merge`` is its last step, what sums over samples allow.
``figures`` holds what came out, ``report`` and ``picture`` show it.
"""
