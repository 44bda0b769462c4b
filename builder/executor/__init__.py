"""Running a build: a room cut off from the network, one tree a fingerprint, a clean environment, the PEP 517 hooks."""
