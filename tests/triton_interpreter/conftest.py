"""Collected with TRITON_INTERPRET=1 alone (tests/test_triton.py sets it): Triton reads it when first imported."""

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
