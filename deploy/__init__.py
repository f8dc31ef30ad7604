"""The steps of deploy/5090.py. Each is a folder here: plan.py decides (pure), apply.py has the commands."""

ORDER = (  # the only list of steps: the order of the guide; a step's name is its folder's
    "repository",
    "driver",
    "guard",
    "reboot",
    "compilers",
    "toolkit",
    "conda",
    "env",
    "flash_attn",
    "training",
    "verification",
    "prefetch",
)
