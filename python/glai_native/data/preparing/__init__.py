"""Columns of tables become features here: read from any frame, typed, filled, standardised, one-hot.

It knows nothing of files, labels or models.
"""
