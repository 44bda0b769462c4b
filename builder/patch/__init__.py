"""One patch on the files that it touches: whether it fits, is there, can be merged, and what its history says."""
