"""Take a host with an NVIDIA GPU to one that can fine-tune Qwen; the guide's table of contents.

    pyinfra inventories/lab.py deploy/5090.py --dry     what would change, and why
    pyinfra inventories/lab.py deploy/5090.py           make it so
"""

from deploy.conda import conda
from deploy.cuda import compilers, cuda_toolkit
from deploy.driver import driver_guard, nvidia_driver, nvidia_repository, reboot
from deploy.flash_attn import flash_attn
from deploy.prefetch import prefetch
from deploy.preview import accepted
from deploy.sources import sources
from deploy.stack import env
from deploy.training import training
from deploy.verification import verification

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
