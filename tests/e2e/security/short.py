"""Runs `pyinfra` or `qwen_rig` with other bounds than qwen_rig/data/bounds.yml, so that a test needs not wait for them:
short.py FOLDER_OF_BOUNDS_YML MODULE ARGUMENTS…"""

import runpy
import sys
from pathlib import Path

from qwen_rig.catalog import bounds

bounds.DATA = Path(sys.argv[1])
module, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
