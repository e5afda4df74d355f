#!/bin/sh
# Chromium for the browser tests: the one that is here, the system's package, or else Playwright's own download.
set -u
python=${1:-python3}

works() { command -v chromium >/dev/null && chromium --version >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo -n "$@"  # never asks for a password
    else return 1
    fi
}

install_package() {
    command -v apt-get >/dev/null || return 1
    as_root apt-get update -qq || true  # one source that is down leaves the lists of the others
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null
}

downloaded() {
    "$python" - <<'PYTHON' 2>/dev/null
import pathlib, sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    sys.exit(not pathlib.Path(playwright.chromium.executable_path).exists())
PYTHON
}

works || downloaded || { install_package && works; } || "$python" -m playwright install chromium || {
    echo "There is no Chromium for the tests of the page: neither 'apt-get install chromium' (as root) nor" \
        "'$python -m playwright install chromium' worked. Put a program 'chromium' on the PATH and try again." >&2
    exit 1
}
