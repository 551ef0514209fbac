"""Measures what pruning costs and saves on whole tasks. README.md says how to run it."""
