"""One source of properties as a tree: a YAML document, a part of a `.properties` file, the environment."""

from collections.abc import Iterator, Mapping
from typing import Any

from backstay.errors import ConfigError
from backstay.spring.names import Element, Key, canonical, elements

MAX_NODES = 100_000  # of one file; aliases in YAML count as often as they are used
MAX_DEPTH = 64


class Node:
    """A value, children by key, or both; `text` is the last element of its name, as written."""

    __slots__ = ("children", "text", "value")

    def __init__(self, text: str) -> None:
        self.text = text
        self.value: Any = None  # None where the source has no value here; an empty one is ""
        self.children: dict[Key, Node] = {}

    def child(self, element: Element) -> "Node":
        """Return the child of that key, made if it isn't there."""
        found = self.children.get(element.key)
        if found is None:
            found = self.children[element.key] = Node(element.text)
        return found

    def find(self, path: list[Element]) -> Iterator["Node"]:
        """Yield the nodes along a path; as many as there are."""
        node = self
        for element in path:
            following = node.children.get(element.key)
            if following is None:
                return
            yield following
            node = following

    @property
    def is_list(self) -> bool:
        """True if all children are elements of a list."""
        return bool(self.children) and all(isinstance(key, int) for key in self.children)

    @property
    def is_mapping(self) -> bool:
        """True if some child has a name."""
        return any(isinstance(key, str) for key in self.children)


class Source:
    """A tree that is built property by property."""

    def __init__(self) -> None:
        self.root = Node("")
        self._nodes = 0

    @classmethod
    def of(cls, value: Mapping[Any, Any]) -> "Source":
        """Return the tree of a mapping; raises ConfigError for one that is too large, too deep or ambiguous."""
        source = cls()
        source._fill(source.root, value, ())
        return source

    def put(self, name: str, value: Any) -> None:
        """Set the value at a dotted name, over one that was there."""
        node = self.root
        for element in elements(name):
            node = node.child(element)
        node.value = value

    def has(self, name: str) -> bool:
        """Return whether there is a value, a list or a mapping at that name."""
        path = elements(name)
        return len(list(self.root.find(path))) == len(path)

    def _fill(self, node: Node, value: Any, path: tuple[str, ...]) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            limit = f"{MAX_NODES} values" if self._nodes > MAX_NODES else f"{MAX_DEPTH} levels"
            raise ConfigError(f"{'.'.join(path[:4])}…: more than {limit}; does an alias refer to what contains it?")
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                self._fill_key(node, key, inner, path)
        elif isinstance(value, list) and value:
            for at, inner in enumerate(value):
                self._fill(node.child(Element(str(at), at)), inner, (*path, f"[{at}]"))
        elif isinstance(value, list) or value is None:
            node.value = ""
        elif not isinstance(value, Mapping):
            if node.value is not None:
                raise ConfigError(f"{'.'.join(path)}: is there twice, in two spellings; leave one of them")
            node.value = value

    def _fill_key(self, node: Node, key: object, value: Any, path: tuple[str, ...]) -> None:
        name = key if isinstance(key, str) else f"[{text_of(key)}]"
        for element in elements(name):
            node = node.child(element)
        self._fill(node, value, (*path, name))


def read_yaml(text: str) -> list[Source]:
    """Return the documents of a YAML file, as Spring Boot reads them: no timestamps, no key twice."""
    import yaml

    try:
        parts = list(yaml.load_all(text, _loader()))
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"not valid YAML: more than {MAX_DEPTH} levels") from None
    for part in parts:
        if part is not None and not isinstance(part, dict):
            raise ConfigError(
                f"a YAML document must be a mapping of keys, not {type(part).__name__}; "
                "properties (`key=value`) are read from files whose name ends with .properties"
            )
    return [Source.of(part) for part in parts if part]


_loaders: dict[str, type] = {}


def _loader() -> Any:
    """Return the loader of plain data, created when the first file is read: PyYAML is needed only then."""
    if "yaml" not in _loaders:
        import yaml

        class Loader(yaml.SafeLoader):
            def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
                seen: set[str] = set()
                for key, _ in node.value:
                    if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                        if key.value in seen:
                            raise yaml.constructor.ConstructorError(
                                None, None, f"the key {key.value!r} is there twice", key.start_mark
                            )
                        seen.add(key.value)
                return super().construct_mapping(node, deep)

        Loader.yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        _loaders["yaml"] = Loader
    return _loaders["yaml"]


def lookup(tree: Any, *path: str) -> Any:
    """Return the value at a path of keys in any spelling, or None."""
    found: Any = tree
    for name in path:
        if not isinstance(found, Mapping):
            return None
        found = next((value for key, value in found.items() if canonical(key) == canonical(name)), None)
    return found


def text_of(value: object) -> str:
    """Return a scalar as Java writes it: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


__all__ = ["Node", "Source", "lookup", "read_yaml", "text_of"]
