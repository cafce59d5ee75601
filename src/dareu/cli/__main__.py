import sys

from dareu.cli import main

sys.exit(main())
