"""Take a host with an NVIDIA GPU to one that can fine-tune Qwen.

    pyinfra inventories/lab.py deploy/5090.py --dry     what would change, and why
    pyinfra inventories/lab.py deploy/5090.py           make it so

Its steps, in order: qwen_rig.deploy.ORDER, a folder each.
"""

from qwen_rig.deploy.provision import provision

provision()
