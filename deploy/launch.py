"""Prepare one training over all hosts of an inventory: launch files on each, and an all-reduce over all of them.

    pyinfra inventories/lab.py deploy/launch.py --limit lab-01 --limit lab-02        (or: qwen-rig launch)

After deploy/5090.py. Then, on each of them:
    sh ~/miniforge3/envs/qwen-train/.rig/launch.sh --model_name_or_path … --dataset_name …
"""

from qwen_rig.deploy.launching.apply import launch

launch()
