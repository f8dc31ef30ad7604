"""pyinfra reads this first: the version it must have, and what is refused before any host is dialled."""

from qwen_rig.project import check_version

QWEN_RIG = "0.2.0"  # the version that wrote this folder's files; another one's package refuses them, in one line
check_version(QWEN_RIG)  # before anything that another version may not have is imported

from qwen_rig.entry import configure  # noqa: E402

REQUIRE_PYINFRA_VERSION = ">=3.10,<4"

configure()
