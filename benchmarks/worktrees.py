"""Commits as folders in which Python can import them: git worktrees with their extension modules built.

They are removed at the end, however it comes, or kept in a folder that is named, to be found there the next time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

__all__ = ["Refused", "Worktrees", "check_built", "commit_of", "root_of", "uncommitted"]

#: What a module of this interpreter ends with.
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
#: Left in a worktree whose modules are all built, by this interpreter.
BUILT = f".built{SUFFIX}"
DIGITS = 12


class Refused(Exception):
    """It cannot be done; the text is a line that says why."""


def root_of(folder: Path) -> Path:
    """The root of the repository that a folder is of."""
    return Path(git(folder, "rev-parse", "--show-toplevel"))


def commit_of(root: Path, revision: str) -> str:
    """The commit that a revision means."""
    try:
        return git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except Refused:
        raise Refused(f"there is no commit {revision!r} here; git log --oneline has those that there are") from None


def uncommitted(root: Path) -> int:
    """How many files of the working tree are not as the last commit has them; new ones that git ignores are none."""
    return len(git(root, "status", "--porcelain").splitlines())


def check_built(root: Path) -> None:
    """Check that the modules of a tree are there, and not older than their sources; Refused if not."""
    how = "build it first: python setup.py -q build_ext --inplace"
    newest = 0.0
    for source in sorted(root.glob("wsengine/**/*.pyx")):
        module = source.with_name(source.stem + SUFFIX)
        name = source.relative_to(root)
        if not module.is_file():
            raise Refused(f"{name} is not built for this Python; {how}")
        if module.stat().st_mtime < source.stat().st_mtime:
            raise Refused(f"{name} is newer than its module; {how}")
        newest = max(newest, module.stat().st_mtime)
    for header in (*root.glob("wsengine/**/*.pxd"), *root.glob("wsengine/**/*.hpp")):
        if header.stat().st_mtime > newest:
            raise Refused(f"{header.relative_to(root)} is newer than all modules; {how}")


class Worktrees:
    """Checkouts of commits of a repository; use `with`.

    Args:
        root: of the repository.
        keep: a folder in which they remain, built, or None.
    """

    def __init__(self, root: Path, keep: Path | None = None) -> None:
        self._root = root
        self._kept = keep is not None
        self._made: list[Path] = []
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
        self.folder = keep.resolve() if keep else Path(tempfile.mkdtemp(prefix="wsengine-commits-"))

    def __enter__(self) -> Worktrees:
        return self

    def __exit__(self, *exception: object) -> None:
        for path in self._made:
            if not (self._kept and (path / BUILT).is_file()):
                self._remove(path)
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def built(self, commit: str) -> Path:
        """A checkout of a commit with its modules; takes minutes where it is not kept from an earlier run.

        Raises:
            Refused: the commit does not build; what the compiler said stands on stderr.
        """
        path = self.folder / commit[:DIGITS]
        if (path / BUILT).is_file():
            if git(path, "status", "--porcelain", "--untracked-files=no"):
                raise Refused(f"{path} is not as {commit[:DIGITS]} has it; remove it, and it is built anew")
            return path
        self._made.append(path)
        self._remove(path)
        git(self._root, "worktree", "add", "--quiet", "--detach", str(path), commit)
        self._build(path, commit)
        return path

    def _build(self, path: Path, commit: str) -> None:
        # Without PYTHONPATH, by which Cython would find the declarations of another tree.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        status = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=path, env=environment,
                                stdout=subprocess.DEVNULL, check=False).returncode
        if status:
            raise Refused(f"{commit[:DIGITS]} does not build: setup.py ended with status {status}")
        (path / BUILT).touch()

    def _remove(self, path: Path) -> None:
        """Whatever there is of it, also after half of a checkout."""
        subprocess.run(["git", "worktree", "remove", "--force", "--force", str(path)], cwd=self._root, capture_output=True,
                       check=False)
        shutil.rmtree(path, ignore_errors=True)
        git(self._root, "worktree", "prune")


def git(folder: Path, *arguments: str) -> str:
    """What git says to a command; Refused with its complaint."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused("git is not installed") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"git {arguments[0]} ended with status {done.returncode}"]
        raise Refused(said[-1])
    return done.stdout.strip()
