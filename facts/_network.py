"""What the host is told about the network: proxies, resolvers, pip's index, where temporary files go. Only read from
files and the environment: no packet is sent. Pure: knows no pyinfra."""

from __future__ import annotations

from typing import Any

from qwen_rig.facts import _sh

EMPTY: dict[str, Any] = {"proxies": {}, "tmpdir": None, "pip_index": None, "nameservers": None, "proxy_script": None}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

# Credentials in an address are cut out here, on the host: they must not travel. What is cut is marked by `***@`.
# pip reads its files in this order, the last word wins, and the environment after them (pip's "Configuration").
SECTIONS = {
    "host.network": rf"""
hide() {{ sed 's|//[^@/]*@|//***@|'; }}
for v in {" ".join(PROXIES)}; do
  eval "x=\${{$v-}}"
  [ -z "$x" ] || printf '%s=%s\n' "$v" "$x" | hide
done
printf 'tmpdir=%s\n' "${{TMPDIR:-/tmp}}"
[ -e /etc/resolv.conf ] && printf 'nameservers=%s\n' "$(grep -c '^[[:space:]]*nameserver' /etc/resolv.conf)"
index=
user=${{XDG_CONFIG_HOME:-$HOME/.config}}/pip/pip.conf
for f in /etc/pip.conf /etc/xdg/pip/pip.conf "$HOME/.pip/pip.conf" "$user"; do
  [ -r "$f" ] || continue
  x=$(sed -n 's/^[[:space:]]*index[-_]url[[:space:]]*[=:][[:space:]]*//p' "$f" | tail -n 1)
  index=${{x:-$index}}
done
index=${{PIP_INDEX_URL:-$index}}
[ -z "$index" ] || printf 'pip_index=%s\n' "$index" | hide
for f in /etc/network_turbo; do [ -r $f ] && owned $f && printf 'proxy_script=%s\n' $f; done
""",
}


def read(text: str) -> dict[str, Any]:
    """The shape of EMPTY; None is not known, {} is none. A marked `***@` stands for credentials."""
    found = _sh.pairs(text)
    servers = found.get("nameservers", "")
    return {"proxies": {name: found[name] for name in PROXIES if name in found}, "tmpdir": found.get("tmpdir"),
            "pip_index": found.get("pip_index"), "nameservers": int(servers) if servers.isdigit() else None,
            "proxy_script": found.get("proxy_script")}
