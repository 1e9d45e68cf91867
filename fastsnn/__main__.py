"""`python -m fastsnn` is the `fastsnn` command, for who starts modules, as torchrun does."""

import sys

from .cli import main

sys.exit(main())
