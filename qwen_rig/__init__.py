"""Turns hosts with an NVIDIA GPU into hosts that can fine-tune Qwen: plans them, runs the plans, proves the result."""

__version__ = "0.2.0"  # the only place; pyproject.toml reads it, and config.py's QWEN_RIG must equal it
