"""AutoDL's containers: / is small, and a stop keeps it and the data disk alike (qwen_rig/data/disks.yml).

miniconda in /root is there already and is adopted; /etc/network_turbo is found by itself (`proxy_script`).
"""

data_dir = "/root/autodl-tmp"
