"""glai inspect, prune and grow."""
