"""Point the env back at what it was before the last build, in a second; nothing else on the host changes.

    qwen-rig undo              the same with a question first, and what a plan sees afterwards
    pyinfra -y inventories/lab.py deploy/undo.py
"""

from qwen_rig.deploy.rollback.apply import undo

undo()
