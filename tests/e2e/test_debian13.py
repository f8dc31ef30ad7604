"""Debian 13 from bare to converged, and again without change: its own apt, whose sqv checks every signature.

Marked real: the hosts' release is another than this machine's, so their disk is built first (a minute).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import instance

from .conftest import Lab

pytestmark = [pytest.mark.testbed, pytest.mark.real]
HOST = "trixie-01"
APT = "/etc/apt/sources.list.d"
# A key whose own signature is SHA-1, as 3BF863CC's is, and a repository that it signs.
OLD = """set -e
export GNUPGHOME=$(mktemp -d)
gpg --batch -q --passphrase '' --cert-digest-algo SHA1 --quick-generate-key old rsa3072 sign never
mkdir -p /srv/old && cd /srv/old && : >Packages
sum=$(sha256sum <Packages)
printf 'Origin: old\\nDate: %s\\nSHA256:\\n %s 0 Packages\\n' "$(date -Ru)" "${sum%% *}" >Release
gpg --batch -q --digest-algo SHA256 --clearsign -o InRelease Release
gpg --armor --export >/usr/share/keyrings/old.asc
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("real SSH hosts on this machine take root on Linux")
    from qwen_rig.catalog.stack import load_stack
    from testbed import HostSpec, Testbed, demo, mirror

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(mirror.RELEASE, "trixie")
        mirror.distribution.cache_clear()
        demo.fetch(load_stack("standin"))
        bed = Testbed(instance("debian13"))
        try:
            yield Lab(bed, bed.up([HostSpec(HOST, compilers=False)]), tmp_path_factory.mktemp("debian13"))
        finally:
            bed.down()
            mirror.distribution.cache_clear()


def test_from_bare_to_converged_and_again_without_change(lab: Lab) -> None:
    planned = lab.rig("plan")
    assert planned.code == 2 and "Debian 13" in planned.stdout, planned
    assert "trusted by the key of" in planned.stdout
    first = lab.deploy("-y", timeout=1200)
    print(planned.stdout, first.stderr, sep="\n")
    assert first.code == 0, first.stderr
    assert lab.on(HOST, ". /etc/os-release; echo $VERSION_ID; command -v sqv; getconf GNU_LIBC_VERSION").split() == [
        "13", "/usr/bin/sqv", "glibc", "2.41"]
    before = lab.fingerprint(HOST)
    again = lab.rig("plan")
    print(again.stdout)
    assert again.code == 0 and f"No changes. {HOST} matches." in again.stdout, again
    assert lab.deploy("-y").code == 0 and lab.fingerprint(HOST) == before


def test_its_apt_rejects_a_key_that_is_signed_with_sha1(lab: Lab) -> None:
    """What the data say of 3BF863CC, shown with a key of the same kind."""
    lab.on(HOST, "command -v gpg >/dev/null || apt-get -qq -y install gpg gpg-agent >/dev/null 2>&1; " + OLD)
    lab.on(HOST, f"echo 'deb [signed-by=/usr/share/keyrings/old.asc] file:/srv/old /' >{APT}/old.list")
    said = lab.on(HOST, f"apt-get update -o Dir::Etc::sourcelist={APT}/old.list -o Dir::Etc::sourceparts=- 2>&1 || :")
    lab.on(HOST, f"rm {APT}/old.list")
    print(said)
    assert "sqv" in said and "SHA1" in said
