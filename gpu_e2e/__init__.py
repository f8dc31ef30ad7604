"""The main job on a real NVIDIA card, over real SSH, on one Linux machine without a network.

    make gpu-e2e-kit                      where registries are in reach: kit/, what the machine needs (below 60 MiB)
    make gpu-e2e [PARTS="ready apply"]    on the machine: the documented command lines, part by part; a report

The machine serves its own Python packages, torch too, as wheels; conda is a stand-in that makes an env of the machine's
own Python. All else is the product: sshd with keys of its own, the plan, the steps, the proof, the certificates.
`report.py` says what was real.
"""
