"""`python -m dareu`: the command line, also under `accelerate launch`."""

import sys

from dareu.cli import main

sys.exit(main())
