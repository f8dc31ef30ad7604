"""This machine, without SSH:  pyinfra inventories/local.py deploy/5090.py --dry"""

local = ["@local"]
