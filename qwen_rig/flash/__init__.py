"""flash-attn as a decision: which wheels may be tried, what a build may take, and what a fleet shares."""

from qwen_rig.flash.wheels import FlashAttn, Wheel, candidates, others, read

__all__ = ["FlashAttn", "Wheel", "candidates", "others", "read"]
