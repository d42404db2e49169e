"""This folder holds the command glai train."""
