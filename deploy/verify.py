"""The name that deploy/certify.py had before 0.2.0, kept for one release.

    pyinfra inventories/lab.py deploy/certify.py
"""

from qwen_rig.deploy.certification.apply import certification, tell_new_name

tell_new_name()
certification()
