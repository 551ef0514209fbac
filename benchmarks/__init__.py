"""Runnable benchmarks. Their results fill the tables of the README; see README.md here."""
