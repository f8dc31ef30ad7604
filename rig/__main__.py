"""`python -m rig VERB …`: the command's former name, kept for one release, in the clone alone."""

import sys

from qwen_rig.cli import main

sys.exit(main())
