"""This folder holds the commands glai learn and forget."""
