#!/usr/bin/env bash
# Installs `ws`, the WebSocket server of Node.js that tests/interop runs against.
#
#   compliance/install_ws.sh [folder]      default: compliance/.node, where the tests look for it
#
# Needs node, npm and their registry.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/.node}

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "compliance/install_ws.sh: node and npm are needed (Debian: apt-get install nodejs npm)" >&2
    exit 1
fi
mkdir -p "$target"
# A registry that is not to be reached is not asked again for minutes.
npm install --fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000 \
    --prefix "$target" --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error ws@8.23.0
if [ "$target" != "$here/.node" ]; then
    echo "for the tests: export WSENGINE_NODE=$target"
fi
