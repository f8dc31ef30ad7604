"""What conda's configuration files say of where packages come from and envs lie. Pure: knows no pyinfra.

Of these files no more is read than those keys: among the rest are passwords and tokens. Files of more weight come first
(conda's "Using the .condarc conda configuration file": each later place goes before those above it); of an address the
first word counts, lists are joined.
"""

from __future__ import annotations

import posixpath
from typing import Any
from urllib.parse import urlsplit

EMPTY: dict[str, Any] = {"channel_alias": None, "custom_channels": {}, "envs_dirs": []}
LARGEST, LONGEST = 65536, 1024  # bytes of a file that is read; characters of a value that counts
SECRET = "***"  # what stands for credentials, which are cut out on the host

# `condarc FILE…` leaves in $condarc a line for each: alias URL, custom NAME URL, envs PATH.
SHELL = rf"""
condarc() {{
  condarc=$(for f do
    [ -f "$f" ] && [ -r "$f" ] && owned "$f" || continue
    head -c {LARGEST} "$f" | awk -v home="$HOME" '
      function said(value) {{
        sub(/[ \t]+#.*$/, "", value); gsub(/^[ \t"\047]+|[ \t\r"\047]+$/, "", value)
        if (value == "" || value ~ /[ \t]/) return
        if (key == "envs_dirs") {{
          if (value ~ /^~\//) value = home substr(value, 2)
          sub(/^\$(HOME|{{HOME}})/, home, value)
          print "envs " value
        }} else {{
          if (value ~ /@|\/t\//) value = "{SECRET}"
          print (key == "channel_alias" ? "alias " : "custom " name " ") value
        }}
      }}
      /^[A-Za-z_]+[ \t]*:/ {{
        key = $0; sub(/[ \t]*:.*/, "", key); value = $0; sub(/^[A-Za-z_]+[ \t]*:[ \t]*/, "", value)
        if (key == "channel_alias") said(value)
        if (key == "envs_dirs" && value ~ /^\[/) {{
          gsub(/^\[|\][ \t\r]*(#.*)?$/, "", value); n = split(value, items, ",")
          for (i = 1; i <= n; i++) said(items[i])
        }}
        if (key == "custom_channels" && value ~ /^{{/) {{
          gsub(/^{{|}}[ \t\r]*(#.*)?$/, "", value); n = split(value, items, ",")
          for (i = 1; i <= n; i++) {{
            name = items[i]; sub(/[ \t]*:[ \t].*/, "", name); gsub(/[ \t"\047]/, "", name)
            sub(/^[^:]*:[ \t]+/, "", items[i]); said(items[i])
          }}
        }}
        next
      }}
      key == "envs_dirs" && /^[ \t]*-[ \t]/ {{ value = $0; sub(/^[ \t]*-[ \t]+/, "", value); said(value); next }}
      key == "custom_channels" && /^[ \t]+[^ \t#].*:[ \t]/ {{
        name = $0; sub(/:[ \t].*/, "", name); gsub(/[ \t"\047]/, "", name)
        value = $0; sub(/^[^:]*:[ \t]+/, "", value); said(value); next
      }}
      /^[^ \t#]/ {{ key = "" }}'
  done)
}}
condarc_files() {{ # [PREFIX]
  printf '%s\n' ${{CONDARC:+"$CONDARC"}} "$HOME/.condarc" "$HOME/.conda/condarc" "$HOME/.conda/.condarc" \
    "${{XDG_CONFIG_HOME:-$HOME/.config}}/conda/condarc" "${{XDG_CONFIG_HOME:-$HOME/.config}}/conda/.condarc" \
    ${{1:+"$1/condarc" "$1/.condarc"}} /var/lib/conda/condarc /var/lib/conda/.condarc \
    /etc/conda/condarc /etc/conda/.condarc
}}
envs_dirs() {{ [ -z "$condarc" ] || printf '%s\n' "$condarc" | sed -n 's,^envs \(/.*\),\1,p'; }}
"""

SECTIONS = {"condarc": r"""
printf '%s\n' "$condarc"
[ -n "$condarc" ] || exit
for d in $(IFS=$nl; set -f; envs_dirs); do [ -d "$d" ] && [ -w "$d" ] && owned "$d" && printf 'fit %s\n' "$d"; done
"""}


def read(text: str) -> dict[str, Any]:
    """The shape of EMPTY. `envs_dirs`: those that are there, ours alone and ours to write, in conda's order. An
    address with credentials is `***`: conda itself must be asked to use that."""
    found: dict[str, Any] = {"channel_alias": None, "custom_channels": {}, "envs_dirs": []}
    for line in text.split("\n"):
        word, _, rest = line.strip().partition(" ")
        if len(rest) > LONGEST or not rest.isprintable():
            continue
        if word == "alias" and _address(rest):
            found["channel_alias"] = found["channel_alias"] or rest
        elif word == "custom":
            name, _, url = rest.partition(" ")
            if _address(url):
                found["custom_channels"].setdefault(name, url)
        elif word == "fit" and rest.startswith("/") and posixpath.normpath(rest) not in found["envs_dirs"]:
            found["envs_dirs"].append(posixpath.normpath(rest))
    return found


def _address(url: str) -> bool:
    """Whether a channel can be there: by http, https or a folder; or known to conda alone."""
    if len(url.split()) != 1:
        return False
    try:
        parts = urlsplit(url)
        return url == SECRET or (parts.scheme in ("http", "https") and bool(parts.hostname)) \
            or (parts.scheme == "file" and parts.path.startswith("/"))
    except ValueError:
        return False
