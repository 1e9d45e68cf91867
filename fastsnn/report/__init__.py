"""The report of one or several sweeps: one HTML page that needs no network, and its figures as PNG and PDF."""

from .page import write

__all__ = ["write"]
