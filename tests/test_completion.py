"""TAB in real shells: the command's own words, then Hydra's groups, choices and keys."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cells import called

pytestmark = pytest.mark.slow  # every TAB is a process
ASKED = {
    "lgap-bench st": "status",
    "lgap-bench run purifier=lik": "purifier=likelihood_max",
    "lgap-bench run -m hydra/launcher=lo": "hydra/launcher=local",
    "lgap-bench tables dataset=dig": "dataset=digits",
}
BASH = """
eval "$(lgap-bench run -sc install=bash)"
COMP_LINE="$1" COMP_WORDS=($1)
COMP_POINT=${#COMP_LINE} COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$(complete -p lgap-bench | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = 'lgap-bench run -sc install=fish | source; complete -C "$argv[1]"'
ZSH = """
zmodload zsh/zpty; zpty shell zsh -f -i
zpty -w shell 'PS1=; autoload -Uz compinit bashcompinit; compinit -u -D; bashcompinit
eval "$(lgap-bench run -sc install=bash)"; echo REA''DY'
zpty -r -m shell seen '*READY*'
zpty -w -n shell "$1"$'\\t'
zpty -r -m shell seen "*$2*" && print -r -- "$seen"
zpty -d shell
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where the shells find the command by its name."""
    command = tmp_path / "lgap-bench"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lgap_bench.cli "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}


@pytest.mark.parametrize("typed, offered", ASKED.items())
@pytest.mark.parametrize("shell, script", [("bash", BASH), ("fish", FISH), ("zsh", ZSH)])
def test_a_shell_offers_what_fits(shell, script, typed, offered, environment):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    before = [] if shell == "fish" else ["--"]
    done = subprocess.run(
        [shell, "-c", script, *before, typed, offered.partition("=")[2] or offered],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert offered in done.stdout, done.stdout + done.stderr


def test_the_command_s_own_words_are_offered_alone(monkeypatch):
    monkeypatch.setenv("COMP_LINE", "lgap-bench re")
    assert called("-sc", "query=bash").stdout.split() == ["report"]
    monkeypatch.setenv("COMP_LINE", "lgap-bench report ")
    assert called("-sc", "query=bash").stdout.split() == []


@pytest.mark.parametrize("words", [["--version"], ["run", "--version"], ["run", "-m", "--version"]])
def test_the_version_is_this_project_s(words):
    from lgap_bench import __version__

    assert called(*words).stdout == f"{__version__}\n"
