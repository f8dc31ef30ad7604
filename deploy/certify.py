"""Prove, card by card, in about two minutes, what each really is and does; keep a certificate, compared with the last.

    pyinfra inventories/lab.py deploy/certify.py         (exits 1 where a gate fails; `qwen-rig certify`: 4)

The same inventories and knobs as deploy/5090.py; nothing is installed. Kept on this controller, by GPU UUID:
`qwen-rig certificate list`, `show`, `diff`, `html`.
"""

from qwen_rig.deploy.certification.apply import certification

certification()
