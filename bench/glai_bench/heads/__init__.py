"""Heads on a frozen backbone, against the MLP head and its controls; never imports another benchmark."""
