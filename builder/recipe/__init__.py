"""Recipes: TOML files that say how a project is fetched, patched, built and checked."""
