"""The running machines of cloud.yml (or of the file that CLOUD_HOSTS names): group `cloud`, and a group a provider.

    pyinfra inventories/cloud.py deploy/5090.py --dry

pyinfra makes a group of every list of hosts in an inventory file: names with an underscore in front are none.
"""

import os as _os
from pathlib import Path as _Path

from qwen_rig import say as _say
from qwen_rig.cloud import load_cloud as _load_cloud
from qwen_rig.errors import RigError as _RigError
from qwen_rig.homes import expanded as _expanded
from qwen_rig.run.handover import hand_over as _hand_over

_folder = _Path(__file__).parent
try:
    _file = _expanded(_os.environ.get("CLOUD_HOSTS") or _folder / "cloud.yml", "CLOUD_HOSTS")
    _found = _load_cloud(_file, _file.with_suffix(".known_hosts"))
    cloud = _hand_over([_host for _hosts in _found.groups.values() for _host in _hosts])
except _RigError as _error:
    raise SystemExit(f"qwen-rig: {_error}") from None  # one line, exit 1, before anything is dialled
for _line in _found.idle:
    _say.err(f"qwen-rig: {_line}")
globals().update({_group: [_name for _name, _ in _hosts] for _group, _hosts in _found.groups.items()})
