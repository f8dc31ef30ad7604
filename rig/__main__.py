"""`python -m rig VERB …`: the command's former name, kept for one release. It stands in the clone alone, in no wheel."""

import sys

from qwen_rig.cli import main

sys.exit(main())
