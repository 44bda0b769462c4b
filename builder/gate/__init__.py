"""The gate as Python sees it: what units took, the broker that admits them by memory, and a build's place at it."""
