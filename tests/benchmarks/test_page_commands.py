"""The commands on the pages have the options that the pages give them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import benchmarks.__main__
import captum_groupcam.apps.cli

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts), *ROOT.glob("*.md")]
)
PROGRAMS = {
    "captum-groupcam": captum_groupcam.apps.cli.app,
    "-m benchmarks": benchmarks.__main__.app,
}


def commands(text: str) -> list[tuple[str, str]]:
    """What a page calls, in blocks and in sentences: the program, and what follows it."""
    blocks = re.findall(r"^ *```(?:sh|shell|bash)\n(.*?)^ *```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    lines += [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]
    return [
        (program, arguments)
        for line in lines
        for program, arguments in re.findall(
            rf"(?:^|\s)({'|'.join(PROGRAMS)}) ([a-z].*?)(?=&&|\||$)", line
        )
    ]


CALLS = [
    pytest.param(program, arguments, id=f"{page.name}: {arguments[:60]}")
    for page in PAGES
    for program, arguments in commands(page.read_text(encoding="utf-8"))
]


def parse(program: str, arguments: str) -> None:
    name, *words = shlex.split(arguments, comments=True)
    command = get_command(PROGRAMS[program]).commands[name]  # type: ignore[attr-defined]
    context = command.context_class(command, info_name=name)
    command.make_parser(context).parse_args(words)


def test_commands_are_found() -> None:
    assert len(CALLS) > 30
    assert commands("Try `captum-groupcam\nexplain a.png`.") == [
        ("captum-groupcam", "explain a.png")
    ]


@pytest.mark.parametrize(("program", "arguments"), CALLS)
def test_a_command_can_be_parsed(program: str, arguments: str) -> None:
    parse(program, arguments)


def test_an_option_that_is_not_there_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse("-m benchmarks", "compare --no-such-option 3")
    with pytest.raises(KeyError):
        parse("captum-groupcam", "explian cat.jpg")
