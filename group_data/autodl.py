"""AutoDL's containers: the data disk stays when the instance is stopped, / is small (its own documentation, env page).

miniconda in /root is there already and is adopted; /etc/network_turbo is found by itself (`proxy_script`).
"""

data_dir = "/root/autodl-tmp"
