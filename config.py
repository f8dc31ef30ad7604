"""pyinfra reads this first: the version it must have, and what is refused before any host is dialled."""

from qwen_rig.run.entry import configure

REQUIRE_PYINFRA_VERSION = ">=3.10,<4"

configure()
