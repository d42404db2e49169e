"""One machine, many rows: time and memory against N, D and M, of what is read in chunks and of what is not."""
