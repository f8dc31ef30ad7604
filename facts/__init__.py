"""What is true of a host, as pyinfra facts: `pyinfra INVENTORY fact facts.gpu.Gpus`.

The package is qwen_rig.facts. pyinfra looks a fact up in the current folder before it reads config.py: this file, which
a folder of `qwen-rig init` has too, leads from the short name to the package.
"""

if __name__ == "facts":
    from qwen_rig.project import name_facts

    name_facts()
