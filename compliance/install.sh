#!/usr/bin/env bash
# Installs the Autobahn fuzzing server (PyPI: autobahntestsuite, which runs on Python 2.7 only) into a virtual environment.
#
#   compliance/install.sh [folder]      default: compliance/.venv27, where compliance/ and the tests look for it
#
# Needs a Python 2.7 with its headers, a C compiler, and PyPI. PYTHON27 names the interpreter where it is not found.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/.venv27}

is_27() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' >/dev/null 2>&1; }

# A name on the PATH may be a shim that refuses to run, so every candidate is tried.
find_27() {
    local candidates=("${PYTHON27:-}" python2.7 python2 pypy2.7 pypy) one
    if command -v pyenv >/dev/null; then
        candidates+=("$(pyenv root)"/versions/2.7*/bin/python2.7)
    fi
    for one in "${candidates[@]}"; do
        if [ -n "$one" ] && is_27 "$one"; then
            command -v "$one"
            return
        fi
    done
    return 1
}

if ! python27=$(find_27); then
    cat >&2 <<'END'
compliance/install.sh: no Python 2.7 was found, and the Autobahn test suite runs on nothing later. Either
    pyenv install 2.7.18            (it is then found by itself), or
    apt-get install python2-dev     (Debian 11, Ubuntu 22.04 and older), or
    PYTHON27=/where/it/is compliance/install.sh
END
    exit 1
fi

# virtualenv 20.21 is the last that makes environments for 2.7; it runs on Python 3, and is thrown away.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch"
"$scratch/bin/pip" install -q 'virtualenv==20.21.1'
"$scratch/bin/virtualenv" -q --clear -p "$python27" "$target"
"$target/bin/python" -W ignore -m pip install -q --no-python-version-warning -r "$here/requirements-27.txt"
"$target/bin/python" -W ignore -c 'import autobahntestsuite; print("autobahntestsuite " + autobahntestsuite.version)'
if [ "$target" != "$here/.venv27" ]; then
    echo "for compliance.run and the tests: export WSENGINE_AUTOBAHN=$target"
fi
