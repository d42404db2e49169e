"""This folder holds the commands glai inspect, prune and grow."""
