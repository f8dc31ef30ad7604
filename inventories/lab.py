"""The hosts of lab.yml (or of the file that LAB_HOSTS names), all in the group `lab`.

    pyinfra inventories/lab.py deploy/5090.py --dry

pyinfra makes a group of every list of hosts in an inventory file: names with an underscore in front are none.
"""

import os as _os
from pathlib import Path as _Path

from qwen_rig.errors import RigError as _RigError
from qwen_rig.homes import expanded as _expanded
from qwen_rig.lab import load_hosts as _load_hosts
from qwen_rig.run.handover import hand_over as _hand_over

try:
    _file = _expanded(_os.environ.get("LAB_HOSTS") or _Path(__file__).parent / "lab.yml", "LAB_HOSTS")
    lab = _hand_over(_load_hosts(_file))
except _RigError as _error:
    raise SystemExit(f"qwen-rig: {_error}") from None  # one line, exit 1, before anything is dialled
