"""YAML with plain values only, and with a limit on aliases: a small file must not become a huge value."""

import re
from typing import Any

import yaml
from yaml import YAMLError
from yaml.composer import ComposerError

__all__ = ["YAMLError", "parse_yaml"]

MOST_NODES = 100_000  # Nodes of a file with its aliases written out.


class _Loader(yaml.SafeLoader):
    """YAML as everybody expects it: 1e-3 is a number (YAML 1.1 wants 1.0e-3), 010 is ten (there: eight).

    The name of a setting may be a word like `on`, which is true there.

    An alias (*name) stands for a value that contains no alias itself: a few lines of aliases of aliases would stand for
    more than any memory can contain.
    """

    yaml_implicit_resolvers = {
        letter: [(tag, words) for tag, words in kinds if tag != "tag:yaml.org,2002:int"]
        for letter, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.nodes = 0  # Nodes so far, with aliases written out.
        self.within = 0  # The number of values with a name (&name) that are being read.
        self.sizes: dict[str, int] = {}  # The size of each value with a name, in nodes.

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node; raise errors as the class describes."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        name, place = event.anchor, event.start_mark
        if isinstance(event, yaml.AliasEvent):
            self.nodes += self.sizes.get(name, 0)
            if self.within or self.nodes > MOST_NODES:
                what = "an alias within what another names" if self.within else "far more with its aliases written out"
                raise ComposerError(None, None, f"*{name}: {what}", place)
            return super().compose_node(parent, index)
        self.nodes += 1
        before = self.nodes
        self.within += name is not None
        node = super().compose_node(parent, index)
        self.within -= name is not None
        if name is not None:
            self.sizes[name] = self.nodes - before + 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, in which names such as `on` and `no` are text."""
        for name, _ in node.value:
            if name.tag == "tag:yaml.org,2002:bool" and name.value.lower() not in ("true", "false"):
                name.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)

    def whole_number(self, node: Any) -> int:
        """Return a whole number; decimal unless its prefix says hexadecimal, octal or binary."""
        text = self.construct_scalar(node).replace("_", "")
        return int(text, 0) if re.match(r"[-+]?0[xob]", text) else int(text)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0x[\da-fA-F_]+|0o[0-7_]+|0b[01_]+|\d[\d_]*)$"),
    list("-+0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text; only plain values, no objects.

    Raises:
        YAMLError: it is none.
    """
    try:
        return yaml.load(text, _Loader)  # The loader is a SafeLoader.
    except (ValueError, RecursionError) as error:  # Too many digits, no such day, or a thousand brackets.
        raise YAMLError(str(error)) from error
