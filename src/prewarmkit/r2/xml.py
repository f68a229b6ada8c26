"""XML from a service, read for what it is: small and plain.

A document type, which is where XML turns dangerous, ends the reading, and so does sheer size. Knows
nothing of S3.
"""

from __future__ import annotations

from xml.parsers import expat

from attrs import define, field

__all__ = ["Node", "RefusedXml", "parse"]

_MAX_XML_BYTES = 16 * 1024 * 1024  # a page of 1000 keys of 1024 bytes, each byte as %XX, is under 4
_MAX_DEPTH = 16
_MAX_NODES = 100_000  # that page has under 15,000


@define
class Node:
    """An element; attributes are nothing that a service says anything by."""

    name: str
    text: str = ""
    children: list[Node] = field(factory=list["Node"])

    def get(self, name: str) -> str | None:
        """The text of the first child of this name."""
        return next((child.text for child in self.children if child.name == name), None)

    def all(self, name: str) -> list[Node]:
        """The children of this name."""
        return [child for child in self.children if child.name == name]


class RefusedXml(ValueError):
    """XML that is not read any further."""


def parse(document: bytes) -> Node:
    """The tree of a small document, namespaces left out.

    Raises:
        RefusedXml: It is too large or deep, has a document type, or is no XML.
    """
    if len(document) > _MAX_XML_BYTES:
        raise RefusedXml(f"it is over {_MAX_XML_BYTES} bytes long")
    root = Node("")
    path = [root]
    nodes = 0

    def start(name: str, _attributes: object) -> None:
        nonlocal nodes
        nodes += 1
        if len(path) > _MAX_DEPTH or nodes > _MAX_NODES:
            raise RefusedXml("it is nested too deeply, or has too many elements")
        node = Node(name.rpartition(" ")[2])
        path[-1].children.append(node)
        path.append(node)

    def end(_name: str) -> None:
        path.pop()

    def text(data: str) -> None:
        path[-1].text += data

    def refuse(*_doctype: object) -> None:
        raise RefusedXml("it has a document type")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        # Blanks may come before it: a service that works for minutes keeps its connection alive with them.
        parser.Parse(document.lstrip(), True)  # noqa: FBT003 - expat takes no keyword here
    except expat.ExpatError as error:
        raise RefusedXml(str(error)) from None
    return root.children[0]
