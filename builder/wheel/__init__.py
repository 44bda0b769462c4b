"""Wheels as files: names, contents, labels."""
