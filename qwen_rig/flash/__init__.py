"""flash-attn as a decision: which wheels may be tried, what a build may take, and what a fleet shares."""

from qwen_rig.flash.wheels import Candidate, FlashAttn, Wheel, candidates, others

__all__ = ["Candidate", "FlashAttn", "Wheel", "candidates", "others"]
