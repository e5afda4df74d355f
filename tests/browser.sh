#!/bin/sh
# Chromium for the browser tests: the one that is here, the system's package, or else Playwright's own download.
set -eu
if command -v chromium >/dev/null; then exit 0; fi
root=$([ "$(id -u)" = 0 ] || echo sudo)
if command -v apt-get >/dev/null && $root apt-get update -qq && $root apt-get install -y -qq chromium; then exit 0; fi
exec "${1:-python3}" -m playwright install chromium
