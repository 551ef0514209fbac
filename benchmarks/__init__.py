"""Runnable benchmarks, whose results the tables of the README are made of; see README.md here."""
