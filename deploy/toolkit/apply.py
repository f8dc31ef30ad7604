"""nvcc of the wanted release from NVIDIA's repository, beside what is there. No driver comes in tow."""

from qwen_rig.run.apt import install
from qwen_rig.run.converge import Applier

APPLIER = Applier("CUDA toolkit | Install the CUDA toolkit", install, root=True)
