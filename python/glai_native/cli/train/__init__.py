"""glai train."""
