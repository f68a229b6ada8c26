"""Run pytest with coverage measured, and print the total.

The arguments are pytest's. The data of a run stays in a folder of its own until the run
has ended, so two runs in one checkout do not mix; then it is `.coverage`, for
`coverage report` and `coverage html`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Run, report, and return the exit code of pytest."""
    coverage = [sys.executable, "-m", "coverage"]
    with tempfile.TemporaryDirectory(prefix="prewarmkit-coverage-") as folder:
        data = Path(folder, "data")
        environment = {**os.environ, "COVERAGE_FILE": str(data)}
        pytest = subprocess.run(
            [*coverage, "run", "-m", "pytest", *arguments], cwd=ROOT, env=environment, check=False
        )
        if not any(Path(folder).iterdir()):
            return pytest.returncode or 1  # nothing was measured: pytest said why
        subprocess.run([*coverage, "combine", "--quiet"], cwd=ROOT, env=environment, check=True)
        total = subprocess.run(
            [*coverage, "report", "--format=total"],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        print(
            f"Covered: {total.stdout.strip()} % of lines and branches (which not: .venv/bin/coverage report)"
        )
        draft = ROOT / f".coverage.{os.getpid()}.done"
        shutil.copyfile(data, draft)
        draft.replace(ROOT / ".coverage")
    return pytest.returncode


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
