"""`qwen-rig VERB …`: a door beside pyinfra's own command line."""

import sys

from qwen_rig.cli import main

sys.exit(main(sys.argv[1:]))
