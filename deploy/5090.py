"""Take a host with an NVIDIA GPU to one that can fine-tune Qwen; the guide's table of contents.

    pyinfra inventories/lab.py deploy/5090.py --dry     what would change, and why
    pyinfra inventories/lab.py deploy/5090.py           make it so
"""

from qwen_rig.deploy.conda.apply import conda
from qwen_rig.deploy.driver.apply import driver_guard, nvidia_driver, nvidia_repository, reboot
from qwen_rig.deploy.env.apply import env
from qwen_rig.deploy.flash_attn.apply import flash_attn
from qwen_rig.deploy.prefetch.apply import prefetch
from qwen_rig.deploy.sources.apply import sources
from qwen_rig.deploy.toolkit.apply import compilers, cuda_toolkit
from qwen_rig.deploy.training.apply import training
from qwen_rig.deploy.verification.apply import verification
from qwen_rig.run.preview import accepted

if accepted():  # probed, planned, shown; False where this host is refused, and its card says why
    sources()
    nvidia_repository()
    nvidia_driver()
    driver_guard()
    reboot()
    compilers()
    cuda_toolkit()
    conda()
    env()
    flash_attn()
    training()
    verification()
    prefetch()
