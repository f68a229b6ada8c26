"""Make `.venv` and keep it: what a `make` target needs is in it when this script ends.

    python3 .ci/venv.py group:tests extra:demo

installs the project (editable), the named dependency groups of pyproject.toml (PEP 735)
and the extras of the project. What is there already is noted in the venv, so a second
run only compares notes. Works without ensurepip (Debian without python3-venv) where pip
22.3 or newer is at hand, and twice at once in one checkout: the second waits.

Owns nothing but `.venv` and the lock beside it; imports the standard library alone.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
NOTES = VENV / "prewarmkit-installed.json"
LOCK = ROOT / ".venv.lock"

NO_PIP = f"""\
{sys.executable} has neither pip 22.3 or newer nor ensurepip, so nothing can be installed.
Install one of them and run make again. On Debian and Ubuntu: apt install python3-pip;
elsewhere: {sys.executable} -m pip install --upgrade pip; or name another Python: make PYTHON=..."""


def main() -> None:
    """Bring `.venv` to where every wanted part is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--this-python", action="store_true", help="an existing .venv must be of this very version"
    )
    parser.add_argument("wanted", nargs="*", metavar="group:NAME|extra:NAME")
    arguments = parser.parse_args()
    wanted = frozenset[str](arguments.wanted)
    if unknown := wanted - declarations():
        raise SystemExit(f"pyproject.toml declares no {', '.join(sorted(unknown))}.")
    if is_ready(wanted, this_python=arguments.this_python):
        return
    if not os.access(ROOT, os.W_OK):
        raise SystemExit(f"{ROOT} is not writable for this user: clone the project where it is.")
    with locked():
        if not is_ready(wanted, this_python=arguments.this_python):  # while waiting, another may have done it
            install(wanted, this_python=arguments.this_python)


# ── what is there ────────────────────────────────────────────────────────────


def pyproject() -> dict[str, dict[str, object]]:
    """The project's own declarations."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def declarations() -> set[str]:
    """Every group and extra there is."""
    data = pyproject()
    extras = data["project"].get("optional-dependencies", {})
    assert isinstance(extras, dict)
    return {f"group:{name}" for name in data.get("dependency-groups", {})} | {
        f"extra:{name}" for name in extras
    }


def fingerprint() -> str:
    """Of all that decides what is installed: where, and what is declared (not how the tools are set)."""
    data = pyproject()
    declared = [data.get(table) for table in ("build-system", "project", "dependency-groups")]
    return hashlib.sha256(json.dumps([str(ROOT), declared], sort_keys=True).encode()).hexdigest()


def notes() -> dict[str, object]:
    """What the last run noted; nothing, if there was none, or it did not end well."""
    try:
        loaded = json.loads(NOTES.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def installed() -> frozenset[str]:
    """The parts that are in the venv, as declared before or now."""
    parts = notes().get("installed", [])
    return frozenset(str(part) for part in parts) if isinstance(parts, list) else frozenset()


def venv_version() -> tuple[int, int] | None:
    """The major and minor version of a venv whose interpreter is still there."""
    config = VENV / "pyvenv.cfg"
    if not (PYTHON.exists() and config.exists()):  # nor does a link whose Python was removed
        return None
    version = re.search(r"^version(?:_info)? *= *(\d+)\.(\d+)", config.read_text(), re.MULTILINE)
    return (int(version[1]), int(version[2])) if version else None


def is_usable(*, this_python: bool) -> bool:
    """Whether the venv, made by whomever, can be kept."""
    version = venv_version()
    if version is None or version < (3, 11) or (this_python and version != sys.version_info[:2]):
        return False
    return notes().get("root", str(ROOT)) == str(ROOT)  # scripts of a moved checkout lead nowhere


def is_ready(wanted: frozenset[str], *, this_python: bool) -> bool:
    """Whether nothing is to be done."""
    return (
        is_usable(this_python=this_python)
        and notes().get("fingerprint") == fingerprint()
        and wanted <= installed()
    )


# ── what is done ─────────────────────────────────────────────────────────────


@contextmanager
def locked() -> Iterator[None]:
    """Alone among all that would change this venv; the system lets go of it if we die."""
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make installs into .venv; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(wanted: frozenset[str], *, this_python: bool) -> None:
    """Make the venv where there is none that can be kept, and install what is missing."""
    parts = wanted | (installed() & declarations())
    if not is_usable(this_python=this_python):
        if VENV.exists():
            say("the .venv that is here cannot be used (moved, of another Python, or broken): making it anew")
            shutil.rmtree(VENV)
        say(f"making .venv with Python {sys.version.split()[0]}")
        run([sys.executable, "-m", "venv", "--without-pip", str(VENV)], "make .venv")
    NOTES.unlink(missing_ok=True)  # half an installation is none
    provide_pip()
    names = ", ".join(sorted(parts)) or "the project"
    say(f"installing {names} into .venv (this once; servers included, it can take some minutes)")
    extras = ",".join(sorted(part.removeprefix("extra:") for part in parts if part.startswith("extra:")))
    groups = sorted(part.removeprefix("group:") for part in parts if part.startswith("group:"))
    project = f"{ROOT}[{extras}]" if extras else str(ROOT)
    pip(
        [
            *(word for group in groups for word in ("--group", f"{ROOT / 'pyproject.toml'}:{group}")),
            "--editable",
            project,
        ]
    )
    noted = {"root": str(ROOT), "fingerprint": fingerprint(), "installed": sorted(parts)}
    draft = NOTES.with_suffix(".new")
    draft.write_text(json.dumps(noted, indent=1))
    draft.replace(NOTES)


def provide_pip() -> None:
    """A pip in the venv that knows dependency groups (25.1)."""
    if version_of([str(PYTHON), "-m", "pip"]) is None:
        if (outer := version_of([sys.executable, "-m", "pip"])) is not None and outer >= (22, 3):
            words = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "--quiet", "pip>=25.1"]
            run(words, "install pip into .venv")
        elif (
            subprocess.run(
                [sys.executable, "-c", "import ensurepip"], stderr=subprocess.DEVNULL, check=False
            ).returncode
            == 0
        ):
            run([str(PYTHON), "-m", "ensurepip", "--default-pip"], "install pip into .venv", quiet=True)
        else:
            raise SystemExit(NO_PIP)
    if (version_of([str(PYTHON), "-m", "pip"]) or (0, 0)) < (25, 1):
        pip(["--upgrade", "pip>=25.1"])


def version_of(pip_command: list[str]) -> tuple[int, int] | None:
    """Of a pip; ``None`` if it is not there."""
    answer = subprocess.run([*pip_command, "--version"], capture_output=True, text=True, check=False)
    if answer.returncode:
        return None
    major, minor = answer.stdout.split()[1].split(".")[:2]
    return int(major), int(minor)


def pip(words: list[str]) -> None:
    """Install with the venv's own pip."""
    run([str(PYTHON), "-m", "pip", "install", "--quiet", *words], "install from PyPI")


def run(words: list[str], to_do: str, *, quiet: bool = False) -> None:
    """Run a command whose failure ends everything."""
    environment = {
        key: value for key, value in os.environ.items() if key not in {"PYTHONHOME", "PYTHONPATH", "PIP_USER"}
    }
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    output = subprocess.DEVNULL if quiet else None
    if subprocess.run(words, cwd=ROOT, env=environment, stdout=output, check=False).returncode:
        raise SystemExit(
            f"prewarmkit: could not {to_do}; the reason is above. Run make again when it is gone."
        )


def say(message: str) -> None:
    """Tell whoever waits what takes so long."""
    print(f"prewarmkit: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
