"""Compiled code is kept for the next process, dropped where its sources are newer, and not needed."""

import os
import subprocess
import sys

from kdtalker.core.compiled import forget_stale_code


def test_code_that_is_older_than_a_source_beside_it_is_dropped(tmp_path):
    kept, source, elsewhere = (
        tmp_path / name for name in ("a/__pycache__/one.nbi", "a/other.py", "b/__pycache__/x.nbi")
    )
    for file in (kept, source, elsewhere):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    os.utime(source, (100, 100))
    os.utime(kept, (200, 200))
    os.utime(elsewhere, (200, 200))
    forget_stale_code.__wrapped__(tmp_path)
    assert kept.exists() and elsewhere.exists()
    os.utime(source, (300, 300))
    forget_stale_code.__wrapped__(tmp_path)
    assert not kept.exists() and not elsewhere.exists()


def test_kernels_work_where_nothing_can_be_kept(tmp_path):
    module = tmp_path / "kernels.py"
    module.write_text("from kdtalker.core.compiled import kernel\n@kernel()\ndef twice(x):\n    return 2 * x\n")
    code = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import kernels\nprint(kernels.twice(4), end='')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "8"
