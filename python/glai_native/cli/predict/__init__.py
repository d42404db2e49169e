"""This folder holds the commands glai predict and evaluate."""
