"""Travels with flash_build.py: what must be there before a build: torch, an nvcc that fits, tools, sources."""

import base64
import hashlib
import importlib.metadata
import json
import netrc
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path

ASK_TORCH = ("import json, torch; print(json.dumps([torch.__version__, torch.version.cuda, "
             "bool(torch._C._GLIBCXX_USE_CXX11_ABI)]))")


class Failed(Exception):
    """Why there is no wheel, in one line; `last`: what was said last."""

    def __init__(self, why, last=()):
        super().__init__(why)
        self.last = list(last)


def number(text):
    """12.8 → (12, 8)."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def ask_torch(seconds=300):
    """(version, CUDA, C++11 ABI) of the env's torch; its first import may take long."""
    try:
        done = subprocess.run([sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=seconds)
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise Failed(f"torch can't be asked for its CUDA: {type(error).__name__}", []) from None


def nvccs():
    """(release, toolkit's folder) of every nvcc here, each folder once: of those places that the plan looks in, too
    (facts/_nvcc.py), and taken as it takes them; what torch itself would take comes first."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [Path(home, "bin", "nvcc") for home in filter(None, homes)]
    places += [Path(first)] if (first := shutil.which("nvcc")) else []
    places += [*sorted(Path("/usr/local").glob("cuda*/bin/nvcc")), Path("/usr/bin/nvcc"),
               *sorted(Path("/opt").glob("cuda*/bin/nvcc"))]
    found = {}
    for nvcc in map(started, places):
        folder = str(nvcc.parent.parent)
        if folder in found or not os.access(nvcc, os.X_OK) or not nvcc.is_file():
            continue
        with suppress(OSError, subprocess.TimeoutExpired):
            said = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, timeout=60).stdout
            if release := re.search(r"release (\d+\.\d+)", said):
                found[folder] = release[1]
    return [(release, folder) for folder, release in found.items()]


def started(nvcc):
    """The file that it is in the end: links followed, and a wrapper script counts as the toolkit's nvcc that it starts,
    where that has headers of its own."""
    nvcc = Path(os.path.realpath(nvcc))
    with suppress(OSError):
        with open(nvcc, "rb") as file:
            text = file.read(1 << 16).decode("utf-8", "replace")
        inner = re.search(r'^ *exec *"?(/[^ "\n]*/bin/nvcc)', text, re.MULTILINE) if text.startswith("#!") else None
        target = Path(os.path.realpath(inner[1])) if inner else nvcc
        if os.access(target, os.X_OK) and (target.parent.parent / "include").is_dir():
            return target
    return nvcc


def choose_nvcc(found, cuda, least):
    """The toolkit to compile with: of torch's CUDA major, not older than `least`, nearest to torch's own release.

    `found`: (release, folder); `cuda`: torch's. Raises Failed with the one line that says what is wrong.
    """
    if not cuda:
        raise Failed("this torch was built without CUDA: nothing to build for")
    if not found:
        raise Failed(f"no nvcc here: torch is built for CUDA {cuda}, so a {number(cuda)[0]}.x toolkit is needed")
    tag = "cu" + "".join(map(str, number(cuda)))
    same = [row for row in found if number(row[0])[0] == number(cuda)[0]]
    if not same:
        have = ", ".join(sorted({release for release, _ in found}, key=number))
        raise Failed(f"a {have} nvcc with {tag}: torch refuses another CUDA major; install a {number(cuda)[0]}.x "
                     f"toolkit, or use a torch that is built for that nvcc's CUDA")
    able = [row for row in same if number(row[0]) >= number(least)]
    if not able:
        newest = max((release for release, _ in same), key=number)
        raise Failed(f"nvcc {newest} can't compile for these cards: they need {least} or newer")
    return min(able, key=lambda row: (number(row[0]) != number(cuda), number(row[0])))


def digest(path):
    """sha256 of a file."""
    made = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            made.update(piece)
    return made.hexdigest()


def opened(url, seconds, **headers):
    """The answer to a request, which says the password that the file $NETRC has for its server (a bundle's tunnel)."""
    request = urllib.request.Request(url, headers=headers)
    with suppress(KeyError, OSError, netrc.NetrcParseError, TypeError):
        user, _, password = netrc.netrc(os.environ["NETRC"]).authenticators(urllib.parse.urlsplit(url).hostname)
        word = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {word}")
    return urllib.request.urlopen(request, timeout=seconds)


def fetch(source, sha256, work, limit, index=None):
    """The unpacked sources' folder and what they are (sha256 of the sdist, or the commit of a git head)."""
    if source.startswith("git+"):
        done = subprocess.run(["git", "clone", "-q", "--depth", "1", source[4:], str(work / "source")],
                              capture_output=True, text=True, timeout=limit)
        if done.returncode:
            raise Failed(f"source unreachable: {source[4:]}", done.stderr.strip().splitlines()[-3:])
        head = subprocess.run(["git", "-C", str(work / "source"), "rev-parse", "HEAD"], capture_output=True, text=True)
        return work / "source", head.stdout.strip()
    file = Path(source)
    if index and "/" not in source:
        source = at_index(index, source)
    if "://" in source:
        file = work / source.rpartition("/")[2]
        try:
            with opened(source, 60) as answer, open(file, "wb") as target:
                shutil.copyfileobj(answer, target)
        except OSError as error:
            raise Failed(f"source unreachable: {source}: {getattr(error, 'reason', None) or error}") from None
    if not file.is_file():
        raise Failed(f"source unreachable: there is no {file}")
    have = digest(file)
    if sha256 and have != sha256:
        raise Failed(f"{file.name} has sha256 {have}, not {sha256}: not used")
    with tarfile.open(file) as archive:
        options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(work / "source", **options)
    inner = [path for path in (work / "source").iterdir() if path.is_dir()]
    if len(inner) != 1:
        raise Failed(f"{file.name} is no sdist: it holds {len(inner)} folders")
    return inner[0], have


def at_index(index, file):
    """The address of an sdist on its project's page in a package index (PEP 503)."""
    project = re.sub(r"[-_.]+", "-", file.rpartition("-")[0]).lower()
    page = f"{index.rstrip('/')}/{project}/"
    try:
        with opened(page, 60, Accept="text/html") as answer:
            hrefs = re.findall(r"""href=["']([^"'#]+)""", answer.read().decode("utf-8", "replace"))
            page = answer.url
    except OSError as error:
        raise Failed(f"source unreachable: {page}: {getattr(error, 'reason', None) or error}") from None
    for href in hrefs:
        if urllib.parse.unquote(href).rpartition("/")[2] == file:
            return urllib.parse.urljoin(page, href)
    raise Failed(f"source unreachable: {page} has no {file}")


def require(lines, wheels, index, target):
    """Bring what the build needs, where the env lacks some of it, into a folder of its own: the env stays as it is.

    `lines`: of a lock, `name==version --hash=…`. What isn't locked is not fetched.
    """
    wanted = [line for line in lines if missing(line)]
    if not wanted:
        return
    names = ", ".join(map(name_of, wanted))
    if unlocked := [name_of(line) for line in wanted if "--hash=" not in line]:
        raise Failed(f"the build needs {', '.join(unlocked)}, which none of our locks holds")
    lock = Path(f"{target}.txt")
    lock.write_text("".join(f"{line}\n" for line in wanted))
    where = ["--no-index", "--find-links", wheels] if wheels else at(index)
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check",
                           "--no-warn-script-location", "--target", str(target), "--timeout", "60", "--require-hashes",
                           "--only-binary", ":all:", "--no-deps", *where, "-r", str(lock)],
                          capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise Failed(f"the build needs {names}, which can't be fetched as locked",
                     done.stderr.strip().splitlines()[-3:])


def at(index):
    """pip's words for an index; one by plain http is the user's own choice, as the env's is."""
    if not index:
        return []
    trusted = ["--trusted-host", urllib.parse.urlsplit(index).hostname] if index.startswith("http:") else []
    return ["--index-url", index, *trusted]


def missing(line):
    """Whether that is neither a package of this env nor, as a system's ninja, a program."""
    try:
        return not importlib.metadata.version(name_of(line))
    except importlib.metadata.PackageNotFoundError:
        return not shutil.which(name_of(line))


def name_of(line):
    """The package that a line of a lock is about."""
    return re.split(r"[<>=!~ ]", line)[0]
