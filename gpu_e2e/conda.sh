#!/bin/sh
# A STAND-IN for conda on a machine without a channel: `create -p PREFIX …` makes an env of the machine's own Python.
# @PYTHON@ and @PIP@ are put in by machine.py.
case ${1:-} in
  --version | -V) echo "conda 26.3.2" ;;
  create)
    shift
    while [ $# -gt 0 ]; do
      case $1 in -p) prefix=$2 && shift ;; esac
      shift
    done
    "@PYTHON@" -m venv --without-pip --copies "$prefix" || exit
    for site in "$prefix"/lib/python3.*/site-packages; do cp -r "@PIP@" "@PIP@"-*.dist-info "$site/" || exit; done
    mkdir -p "$prefix/conda-meta" || exit
    version=$("$prefix/bin/python" -c 'import platform; print(platform.python_version())')
    printf '{"name": "python", "version": "%s", "build": "standin", "channel": "standin"}' "$version" \
      >"$prefix/conda-meta/python-$version-standin.json"
    echo "# cmd: create" >"$prefix/conda-meta/history"
    ;;
  *)
    echo "the stand-in for conda doesn't know: $*" >&2
    exit 1
    ;;
esac
