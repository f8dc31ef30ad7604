"""`python -m rig VERB …`: a door beside pyinfra's own command line."""

import sys

from rig.cli import main

sys.exit(main(sys.argv[1:]))
