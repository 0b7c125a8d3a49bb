"""What README.md and docs/*.md tell people to type: blocks of code, and the commands in them and in running text."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"raydistill", "ray", "uv", "pip", "python", "bash", "aws", "docker", "kubectl", "duckdb", "export"}
PROGRAMS |= {"tensorboard", "optuna-dashboard", "nvidia-cuda-mps-control"}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?:(?: {4}.*)?\n)+")
SPAN = re.compile(r"`([^`]+)`")
KEYWORDS = {"for", "do", "done"}  # of the shell


@dataclass(frozen=True)
class Block:
    """A block of code on a page; `kind` is python, or nothing for what stands in a shell or is shown by one."""

    page: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text.strip().splitlines()[0][:60]}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    text = page.read_text()
    found = [(m.start(), Block(page.name, m[1], m[2])) for m in FENCED.finditer(text)]
    rest = FENCED.sub(lambda m: "\n" * len(m[0]), text)
    found += [(m.start(), Block(page.name, "", textwrap.dedent(m[0]))) for m in INDENTED.finditer(rest) if m[0].strip()]
    return [block for _, block in sorted(found, key=lambda pair: pair[0])]


def spans(page: Path) -> list[str]:
    """What is marked as code in the running text of a page: commands, lone options (`--set ...`), imports."""
    rest = INDENTED.sub("\n", FENCED.sub("\n", page.read_text()))
    found = [" ".join(text.split()) for text in SPAN.findall(rest)]
    return [text for text in found if text.split()[0] in {*PROGRAMS, "from"} or text.startswith("--")]


def lines(block: Block) -> list[str]:
    """What is typed: all of a block, or what stands behind `$`; continued lines are one."""
    joined = re.sub(r"\\\n\s*", "", block.text).splitlines()
    typed = [line[2:] for line in joined if line.startswith("$ ")] or joined
    return [line for line in typed if line.strip()]


def commands(line: str) -> list[list[str]]:
    """The simple commands of a line of shell as lists of words; without keywords, redirections and comments.

    What is no shell (an open quotation) is one word.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    to_file = False
    try:
        words = list(lexer)
    except ValueError:
        return [[line]]
    for word in words:
        if set(word) <= set("();<>|&"):
            to_file = set(word) <= set("<>")
            found += [] if to_file else [[]]
        elif not to_file:
            found[-1].append(word)
    return [words for words in found if words and words[0] not in KEYWORDS]


def without_uv(words: list[str]) -> list[str]:
    """A command without `uv run` and its options before it."""
    if words[:2] != ["uv", "run"]:
        return words
    words = words[2:]
    while words and words[0] in ("--extra", "--with"):
        words = words[2:]
    return words
