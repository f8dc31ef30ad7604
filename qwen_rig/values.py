"""The types of values that come from outside: one check for each, wherever such a value is read. Pure.

Each takes a value, returns it in its one form, and raises Wrong where it is none: knobs, lab.yml and cloud.yml, what
clouds answer, options of the command line, manifests.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from typing import Any
from urllib.parse import urlsplit

MONTH = 31 * 24 * 3600  # seconds; none of our waits is meant to be longer, and timers of 32 bits take it
LONGEST_PATH, LONGEST_NAME = 4095, 255  # bytes: PATH_MAX less its NUL, NAME_MAX (Linux)
# Folders of the system's own (Filesystem Hierarchy Standard 3.0), with all below them but what is for the user there.
SYSTEM = re.compile("/(bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|run|sbin|sys|usr)(/.*)?")
USERS_OWN = ("/usr/local/", "/run/media/")
# Folders that others' things lie in: nothing is installed as one of them, a folder below them may be ours.
SHARED = frozenset(("/", "/home", "/media", "/mnt", "/opt", "/root", "/run/media", "/srv", "/tmp", "/usr/local", "/var",
                    "/var/lib", "/var/tmp"))
_FILE = re.compile(r"(/[\w.+@,=~%-]+)+/?")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?|[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of fe80::1%eth0; Python itself takes anything behind the %
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*\.?", re.IGNORECASE)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?")  # useradd(8); dots and digits, as clouds and lists allow
_REALM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,253}")  # user@realm and REALM\user of domains
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}([0-9A-F]{24})?")  # OpenPGP's, version 4 (5 and 6)
_STEPS = re.compile(r"[a-z_]{1,40}([, ]{1,3}[a-z_]{1,40}){0,40}")
_ENV = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class Wrong(ValueError):
    """What is wrong with a value: words that follow its name ("can't be '/'"), and what to do."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def shown(value: Any) -> str:
    """A value as a message shows it: short, on one line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes out
        text = f"a {type(value).__name__} too long to be shown"
    return text if len(text) <= 60 else f"{text[:57]}…"


def not_(value: Any, remedy: str) -> Wrong:
    """A value that can't be, and what is wanted."""
    return Wrong(f"can't be {shown(value)}", remedy)


def step_names(value: Any) -> str:
    """Names of steps, with commas or blanks between."""
    if not isinstance(value, str) or not _STEPS.fullmatch(value):
        raise not_(value, "names of steps, with commas between: driver,reboot")
    return value


def host_file(value: Any) -> str:
    """The absolute path of a file or folder on a host."""
    if not isinstance(value, str) or not _FILE.fullmatch(value) or {".", ".."} & set(value.split("/")) \
            or _too_long(value):
        raise not_(value, "an absolute path on the host: from / on, without blanks, quotes, : and ..")
    return posixpath.normpath(value)


def data_folder(value: Any) -> str:
    """A folder of a host in which ours is made: no folder of the system's."""
    path = host_file(value)
    if path in ("/", "/var", "/var/lib") or (SYSTEM.fullmatch(path) and not path.startswith(USERS_OWN)):
        raise not_(value, "that is the system's own folder: name one for data, such as /data")
    return path


def prefix(value: Any) -> str:
    """A folder of a host that is ours altogether, such as a conda's."""
    path = data_folder(value)
    if path in SHARED:
        raise not_(value, f"other things lie there too: name a folder of its own, such as {path}/miniforge3")
    return path


def env_name(value: Any) -> str:
    """The name of a conda env."""
    if not isinstance(value, str) or not _ENV.fullmatch(value):
        raise not_(value, "letters, digits, - and _ only, no - first, 64 at most")
    if value.lower() in ("base", "root"):
        raise not_(value, "conda's own env is called so: name another")
    return value


def local_path(value: Any) -> str:
    """A path on this machine, as it was given."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise not_(value, "a path, with no control character in it")
    if _too_long(value):
        raise Wrong(f"is too long for a path: {len(value)} characters", "name a shorter one")
    return value


def _too_long(path: str) -> bool:
    raw = path.encode("utf-8", "surrogatepass")
    return len(raw) > LONGEST_PATH or max(map(len, raw.split(b"/"))) > LONGEST_NAME


def url(value: Any, *schemes: str) -> str:
    """An address with one of these schemes (none given: https, http, file), a host and no login."""
    schemes = schemes or ("https", "http", "file")
    wanted = f"begin it with {', '.join(f'{scheme}://' for scheme in schemes[:-1])} or {schemes[-1]}://"
    if not isinstance(value, str) or "://" not in value:
        raise Wrong(f"must be a URL, not {shown(value)}", wanted)
    if not value.isascii() or not value.isprintable() or set(value) & set(" '\"\\<>`{|}^#"):
        raise Wrong(f"must be a URL, not {shown(value)}", "write spaces and quotes as %20, %27, %22")
    try:
        parts = urlsplit(value)
        host, number = parts.hostname, parts.port
    except ValueError:
        raise Wrong(f"must be a URL, not {shown(value)}", "its host or its port can't be read") from None
    if parts.scheme not in schemes:
        raise Wrong(f"must be a URL, not {shown(value)}", wanted)
    if "@" in parts.netloc:
        raise Wrong("must hold no user or password", "put them into ~/.netrc on the host")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise Wrong(f"must be a URL, not {shown(value)}", "a file's has three strokes: file:///folder")
        return value
    if not host or number == 0 or parts.netloc.endswith(":") or not is_address(host):
        raise Wrong(f"must be a URL, not {shown(value)}", "behind :// it needs a host, and perhaps a port to 65535")
    return value


def is_address(text: str) -> bool:
    """Whether this is a host's name or an IP address (4 or 6, with a zone or without), and nothing besides."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        labels = text.removesuffix(".").split(".")
        return len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not _NUMERIC.fullmatch(text)
    _, percent, zone = text.partition("%")
    return not percent or bool(_ZONE.fullmatch(zone))


def address(value: Any) -> str:
    """A host's name or IP address."""
    if not isinstance(value, str) or not is_address(value):
        raise not_(value, "a name or an IP alone; user and port have keys of their own")
    return value


def user(value: Any) -> str:
    """A login name, with the realm of a domain's."""
    name = value if isinstance(value, str) else ""
    realm = "realm"
    if "@" in name:
        name, realm = name.rsplit("@", 1)
    elif "\\" in name:
        realm, name = name.split("\\", 1)
    if not _USER.fullmatch(name) or not _REALM.fullmatch(realm):
        raise not_(value, "a login name: letters, digits, . _ and -, no - first")
    return str(value)


def port(value: Any) -> int:
    """A port as a number; digits, as JSON of others has it in quotes, will do."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,5}", value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 65536:
        raise not_(value, "a whole number from 1 to 65535")
    return number


def whole(value: Any, least: int = 1, most: int = 10 ** 9) -> int:
    """A whole number, in these bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise Wrong(f"must be a whole number above 0, not {shown(value)}")
    if not least <= value <= most:
        raise not_(value, f"a whole number from {least} to {most}")
    return value


def seconds(value: Any) -> int:
    """A duration."""
    return whole(value, most=MONTH)


def sha256(value: Any) -> str:
    """A SHA-256 in lower-case hex digits."""
    text = value.lower() if isinstance(value, str) else ""
    if not _SHA256.fullmatch(text):
        raise not_(value, "a SHA-256 has 64 hex digits")
    return text


def fingerprint(value: Any) -> str:
    """An OpenPGP key's whole fingerprint; blanks in it will do."""
    if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value.replace(" ", "").upper()):
        raise not_(value, "a key's whole fingerprint has 40 hex digits: gpg --show-keys FILE tells it")
    return value


def model_id(value: Any) -> str:
    """A repository of the hub."""
    if not isinstance(value, str) or not _MODEL.fullmatch(value) or re.search(r"\.\.|--|[.-](/|$)|\.git$", value):
        raise not_(value, "name it as the hub does: Qwen/Qwen2.5-0.5B")
    return value


def release(value: Any) -> str:
    """A version that is part of a file's name."""
    if not isinstance(value, str) or not _RELEASE.fullmatch(value):
        raise not_(value, "a version as the file's name has it: letters, digits, . _ + and -")
    return value
