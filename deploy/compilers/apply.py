"""gcc and g++ from the distribution."""

from qwen_rig.run.apt import install
from qwen_rig.run.converge import Applier

APPLIER = Applier("Compilers | Install gcc and g++", install, root=True)
