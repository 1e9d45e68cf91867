"""Numerics: one folder per op, each with its specification (reference.py) and its backends."""
