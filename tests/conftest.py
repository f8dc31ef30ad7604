"""The order of files side by side: the long ones first, so that no worker is left alone with one at the end."""

import pytest

# Files that take minutes, the longest first, as `pytest --durations=0` had them. One that isn't here comes after them.
LONG = ("e2e/test_fleet", "e2e/test_main_job", "e2e/test_stacks", "e2e/test_closed", "e2e/test_door", "e2e/test_jobs",
        "e2e/test_bad_hosts", "e2e/test_launch", "e2e/security/test_fetched", "e2e/test_flash_attn", "e2e/test_train",
        "e2e/test_signals", "e2e/security/test_owner", "e2e/test_conda", "testbed/test_testbed", "e2e/test_systemd",
        "e2e/test_mirrors", "package/test_wheel", "e2e/test_users", "e2e/security/test_flood", "e2e/test_kinds",
        "inventories/test_hosts", "e2e/test_odd_shells", "e2e/test_certificate", "e2e/test_memory_cap",
        "e2e/security/test_secrets", "e2e/security/test_hosttext")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get("/".join(item.path.parts).partition("/tests/")[2], len(LONG)))
