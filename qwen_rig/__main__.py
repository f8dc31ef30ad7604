"""`python -m qwen_rig VERB …`: the command `qwen-rig` where no script of that name is on PATH."""

import sys

from qwen_rig.cli import main

sys.exit(main())
