"""`python -m benchmarks.commits` in a small repository of its own, whose package builds at once and whose suites are not
run: what is checked out, built and removed, and what is said of what cannot be done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from benchmarks import commits, suites
from benchmarks.figures import TIME, Run
from benchmarks.worktrees import Refused, Worktrees, check_built, commit_of, root_of, uncommitted

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
SETUP = f"""
import pathlib, sys
assert sys.argv[1:] == ["-q", "build_ext", "--inplace"]
pathlib.Path("wsengine", "fast{SUFFIX}").touch()
with open("builds.log", "a") as log:
    log.write("built")
"""


def git(root, *arguments):
    done = subprocess.run(["git", "-c", "user.name=Somebody", "-c", "user.email=nobody@localhost", *arguments], cwd=root,
                          capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(root, files):
    """Commit these files; their commit."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "One more")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def root(tmp_path):
    """A repository of two commits, tagged "first" and "second"."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    (root / ".gitignore").write_text("*.so\n*.log\n")
    (root / "wsengine").mkdir()
    (root / "wsengine" / "__init__.py").write_text("")
    (root / "wsengine" / "fast.pyx").write_text("")
    commit(root, {"setup.py": SETUP, "benchmarks/figures.py": ""})
    git(root, "tag", "first")
    commit(root, {"benchmarks/new.py": ""})
    git(root, "tag", "second")
    return root


@pytest.fixture
def runs(monkeypatch):
    """The runs that would have been made; each comes to 1 for the package of the base, and 2 for any other."""
    made = []

    def run(suite, tree, seconds):
        made.append((str(suite), tree.package.name, sorted(path.name for path in tree.benchmarks.glob("benchmarks/*.py"))))
        first = tree.package.name == made[0][1]
        return Run({("keys: one", TIME): 1.0 if first else 2.0}, {"keys: two": "why"} if first else {})

    monkeypatch.setattr(suites, "run", run)
    return made


def options(*arguments):
    return commits.parse([*arguments, "--suite", "keys", "--rounds", "3"])


def worktrees(root):
    return git(root, "worktree", "list").count("\n")


def test_two_commits_take_turns_and_nothing_is_left(root, runs):
    found = commits.compare(options("first", "second"), root)
    first, second = (git(root, "rev-parse", "--short=12", name) for name in ("first", "second"))
    assert [package for _, package, _ in runs] == [first, second, second, first, first, second]
    assert {tuple(code) for _, _, code in runs} == {("figures.py", "new.py")}  # the head's, for both
    said = commits.shown(found)
    assert f"base {first}, head {second}; benchmarks of the head" in said
    assert "2.00 (2.00 … 2.00)  worse" in said
    assert said.endswith("not there in base: keys: two: why")
    assert json.loads(commits.as_json(found))["figures"] == [
        {"name": "keys: one", "unit": TIME, "base": [1.0] * 3, "head": [2.0] * 3}]
    assert worktrees(root) == 0
    assert uncommitted(root) == 0


def test_without_a_head_it_is_the_working_tree(root, runs):
    (root / "wsengine" / f"fast{SUFFIX}").touch()
    (root / "benchmarks" / "newer.py").write_text("")
    found = commits.compare(options("first"), root)
    assert [package for _, package, _ in runs][1:3] == ["repository"] * 2
    assert runs[0][2] == ["figures.py", "new.py", "newer.py"]
    second = git(root, "rev-parse", "--short=12", "HEAD")
    assert found["names"]["head"] == f"the working tree, at {second}, uncommitted files: 1"


def test_an_interrupt_leaves_nothing_behind(root, monkeypatch):
    seen = []

    def run(suite, tree, seconds):
        seen.append(tree)
        raise KeyboardInterrupt

    monkeypatch.setattr(suites, "run", run)
    with pytest.raises(KeyboardInterrupt):
        commits.compare(options("first", "second"), root)
    assert worktrees(root) == 0
    assert not seen[0].package.exists()
    assert not seen[0].benchmarks.exists()


def test_a_kept_build_is_found_again(root, tmp_path):
    keep = tmp_path / "kept"
    for _ in range(2):
        with Worktrees(root, keep) as made:
            path = made.built(commit_of(root, "first"))
        assert (path / "builds.log").read_text() == "built"
    assert worktrees(root) == 1
    (path / "setup.py").write_text("other")
    with Worktrees(root, keep) as made, pytest.raises(Refused, match=r"is not as .* has it; remove it"):
        made.built(commit_of(root, "first"))


def test_a_commit_that_does_not_build_is_told_and_removed(root, tmp_path):
    broken = commit(root, {"setup.py": "raise SystemExit(3)"})
    keep = tmp_path / "kept"
    with Worktrees(root, keep) as made, pytest.raises(Refused, match=r"does not build: setup\.py ended with status 3"):
        made.built(broken)
    assert list(keep.iterdir()) == []
    assert worktrees(root) == 0


def test_a_package_that_cannot_be_imported_is_told(root, runs):
    commit(root, {"wsengine/__init__.py": "import nonesuch"})
    with pytest.raises(Refused, match="cannot be imported: ModuleNotFoundError"):
        commits.compare(options("first", "HEAD"), root)


def test_a_head_older_than_this_command_is_measured_by_the_present_benchmarks(root, runs):
    git(root, "rm", "-q", "benchmarks/figures.py")
    git(root, "commit", "-q", "-m", "Without")
    (root / "benchmarks" / "figures.py").write_text("")
    found = commits.compare(options("first", "HEAD"), root)
    assert found["names"]["benchmarks"] == "the working tree, for the head's are too old"


def test_a_working_tree_that_is_not_built_is_refused(root):
    with pytest.raises(Refused, match=r"wsengine/fast\.pyx is not built for this Python; build it first: python setup\.py"):
        check_built(root)
    module, source = root / "wsengine" / f"fast{SUFFIX}", root / "wsengine" / "fast.pyx"
    module.touch()
    check_built(root)
    newer = module.stat().st_mtime_ns + 10**9
    header = root / "wsengine" / "fast.pxd"
    header.touch()
    for path, said in ((header, "newer than all modules"), (source, "newer than its module")):
        os.utime(path, ns=(newer, newer))
        with pytest.raises(Refused, match=said):
            check_built(root)


def test_no_such_commit_is_one_line(root, capsys, monkeypatch):
    monkeypatch.setattr(commits, "root_of", lambda folder: root)
    assert commits.main(["nonesuch", "--suite", "keys"]) == 1
    assert capsys.readouterr().err == "there is no commit 'nonesuch' here; git log --oneline has those that there are\n"
    assert commits.main(["--", "--all"]) == 1
    assert capsys.readouterr().err.startswith("there is no commit '--all' here")


def test_no_repository_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(commits, "root_of", lambda folder: root_of(tmp_path))
    assert commits.main(["HEAD"]) == 1
    assert "not a git repository" in capsys.readouterr().err


@pytest.mark.parametrize(("wrong", "said"), [
    (["HEAD", "--suite", "nonesuch"], "there is no 'nonesuch'"), (["HEAD", "--rounds", "0"], "give a whole number above 0"),
    (["HEAD", "--seconds", "nan"], "give a number above 0"), ([], "BASE"),
])
def test_wrong_options_are_one_line(wrong, said, capsys):
    with pytest.raises(SystemExit):
        commits.main(wrong)
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_command_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "benchmarks.commits", "--help"], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).resolve().parents[1])
    assert "--keep" in done.stdout
