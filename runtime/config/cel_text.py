"""The words of a rule, read before cel-python sees it.

The grammar of cel-python lets through what the language does not have (unknown escapes, ``1.``, reserved words) and
refuses some of what it has (quoted fields, some raw strings). So texts and quoted fields are read here, and something
harmless of the same length stands in their place in what its parser is given: positions stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from angos.sansio.access.expression_nodes import Constant

TEXT_LENGTH_MAX = 4096
"""In characters. A rule of this length takes up to 100 ms to parse."""
NESTING_MAX = 32
"""Brackets within brackets: parsing and evaluating them takes stack."""

_RESERVED_WORDS = """
    as break const continue else for function if import let loop namespace package return var void while
"""
RESERVED = frozenset(_RESERVED_WORDS.split())
"""Language definition, Syntax: names that a variable cannot have. Fields and methods can."""
WORDS = frozenset({"in", "true", "false", "null"})
"""The same for fields."""


class BadRule(ValueError):
    """A text is no rule. Says where, why, and what to write instead."""

    def __init__(self, problem: str, rule: str, position: int = 0) -> None:
        before = rule[:position]
        self.problem = problem
        self.line = before.count("\n") + 1
        self.column = position - (before.rfind("\n") + 1) + 1
        shown, caret = _excerpt(rule.split("\n")[self.line - 1], self.column - 1)
        super().__init__(f"line {self.line}, column {self.column}: {problem}\n    {shown}\n    {caret}")


def _excerpt(line: str, at: int, width: int = 100) -> tuple[str, str]:
    """A piece of the line, and a caret below the place."""
    start = max(0, at - width // 2) if len(line) > width else 0
    shown = "".join(character if character.isprintable() else " " for character in line[start : start + width])
    return shown, " " * (at - start) + "^"


@dataclass(frozen=True, slots=True)
class Words:
    """A rule, ready for the parser."""

    text: str
    """As it was written."""
    blanked: str
    """What the parser is given. As long as `text`."""
    literals: dict[int, Constant]
    """By position: strings, bytes, true and false."""
    fields: dict[int, str]
    """Quoted fields by position."""

    def word_at(self, position: int) -> str:
        """For a message."""
        found = _WORD.match(self.text, position)
        return "text" if found is None or found.lastgroup == "string" else f'"{found[0]}"'

    def bad(self, problem: str, position: int) -> BadRule:
        """The error for a place in the text."""
        return BadRule(problem, self.text, position)


_WORD = re.compile(
    r"""(?P<blank>[ \t\n\f\r]+)
    |(?P<comment>//[^\n]*)
    |(?P<string>(?P<bytes>[bB]?)(?:
        [rR](?:(?P<raw>\"\"\"|''')(?P<raw_long>.*?)(?P=raw)|(?P<q>["'])(?P<raw_short>[^\n\r]*?)(?P=q))
        |(?P<cooked>\"\"\"|''')(?P<long>(?:[^\\]|\\.)*?)(?P=cooked)
        |(?P<p>["'])(?P<short>(?:[^\\\n\r]|\\[^\n\r])*?)(?P=p)))
    |(?P<number>0x[0-9a-fA-F]+[uU]?|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[uU]?)
    |(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<quoted>`[a-zA-Z0-9_./\ -]+`)
    |(?P<mark>&&|\|\||[=!<>]=|[<>!?:+\-*/%.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)

_ADVICE = {
    "=": "two values are compared with ==",
    "&": "conditions are joined with &&",
    "|": "conditions are joined with ||",
    "`": "only a field can be quoted like this, and only letters, digits and _.-/ and blanks can be in it",
    ";": "a rule is one expression, and nothing separates it from another one",
}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def read_words(text: str) -> Words:
    """Raises `BadRule`."""
    if len(text) > TEXT_LENGTH_MAX:
        raise BadRule(f"the rule has {len(text)} characters, {TEXT_LENGTH_MAX} are allowed; split it", text)
    words = Words(text, "", {}, {})
    blanked: list[str] = []
    opened: list[tuple[str, int]] = []
    at, before = 0, ""
    while at < len(text):
        found = _WORD.match(text, at)
        if found is None:
            if text[at] in "\"'":
                raise words.bad("this text does not end", at)
            advice = _ADVICE.get(text[at], "it has no meaning in a rule")
            raise words.bad(f"unexpected {_named(text[at])}: {advice}", at)
        word, form = found[0], found.lastgroup
        blanked.append(_blanked(words, found, before))
        if form == "mark":
            _follow(words, word, at, opened)
        elif form == "name" and word in (WORDS if before == "." else RESERVED):
            advice = f"write .`{word}` for the field" if before == "." else "it cannot be a name"
            raise words.bad(f'"{word}" is a word of the language: {advice}', at)
        at = found.end()
        if form == "number" and at < len(text) and (text[at] == "_" or text[at].isalnum()):
            raise words.bad(f"a number ends in {_named(text[at])}", at)
        if form not in ("blank", "comment"):
            before = word
    if opened:
        raise words.bad(f"this {opened[-1][0]} is never closed", opened[-1][1])
    if not before:
        raise BadRule("the rule is empty; write an expression, such as true, or leave it out", text)
    return Words(text, "".join(blanked), words.literals, words.fields)


def _named(character: str) -> str:
    return f'"{character}"' if character.isprintable() else f"character U+{ord(character):04X}"


def _blanked(words: Words, found: re.Match[str], before: str) -> str:
    word, at = found[0], found.start()
    match found.lastgroup:
        case "comment":
            return " " * len(word)
        case "string":
            words.literals[at] = _read_text(words, found)
            return f'"{"_" * (len(word) - 2)}"'
        case "quoted":
            if before != ".":
                raise words.bad(f'unexpected "`": {_ADVICE["`"]}', at)
            words.fields[at] = word[1:-1]
            return "_" * len(word)
        case "name" if word in ("true", "false"):
            # Also a literal, but one whose position the parser keeps.
            words.literals[at] = Constant("bool", word == "true")
            return "null".ljust(len(word))
        case _:
            return word


def _follow(words: Words, mark: str, at: int, opened: list[tuple[str, int]]) -> None:
    if mark in _CLOSING:
        opened.append((mark, at))
        if len(opened) > NESTING_MAX:
            raise words.bad(f"brackets are nested more than {NESTING_MAX} deep; leave some out or split the rule", at)
    elif mark in _CLOSING.values():
        if not opened:
            raise words.bad(f'unexpected "{mark}": nothing was opened', at)
        mate, opened_at = opened.pop()
        if _CLOSING[mate] != mark:
            raise words.bad(f'unexpected "{mark}": the "{mate}" in column {_column(words.text, opened_at)} is open', at)


def _column(text: str, at: int) -> int:
    return at - (text.rfind("\n", 0, at) + 1) + 1


# --- texts ------------------------------------------------------------------------------------------------------------

_ESCAPE = re.compile(
    r"\\(?:(?P<plain>[abfnrtv\\?\"'`])|[xX](?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})"
    r"|(?P<octal>[0-3][0-7]{2})|(?P<bad>.))",
    re.DOTALL,
)
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _read_text(words: Words, found: re.Match[str]) -> Constant:
    """Language definition, String and Bytes Values. In bytes, ``\\x`` and octal digits stand for bytes."""
    binary = bool(found["bytes"])
    for group in ("raw_long", "raw_short"):
        if found[group] is not None:
            return _text(words, found, found[group].encode("utf-8", "surrogatepass"), binary)
    group = "short" if found["short"] is not None else "long"
    pieces: list[bytes] = []
    content, start, at = found[group], found.start(group), 0
    for escape in _ESCAPE.finditer(content):
        pieces.append(content[at : escape.start()].encode("utf-8", "surrogatepass"))
        pieces.append(_escaped(words, escape, start, binary))
        at = escape.end()
    pieces.append(content[at:].encode("utf-8", "surrogatepass"))
    return _text(words, found, b"".join(pieces), binary)


def _text(words: Words, found: re.Match[str], content: bytes, binary: bool) -> Constant:
    try:
        text = content.decode() if not binary else ""
    except UnicodeDecodeError:
        raise words.bad("this text has half of a surrogate pair, which is no character", found.start()) from None
    return Constant("bytes", content) if binary else Constant("string", text)


def _escaped(words: Words, escape: re.Match[str], start: int, binary: bool) -> bytes:
    position = start + escape.start()
    if escape["plain"]:
        return _PLAIN.get(escape["plain"], escape["plain"]).encode()
    if escape["bad"]:
        raise words.bad(
            f'there is no escape {escape[0]}; a backslash is written as \\\\, or the text as a raw one: r"..."',
            position,
        )
    short = escape["x"] or escape["octal"]
    if short:
        code = int(short, 16 if escape["x"] else 8)
        return bytes([code]) if binary else chr(code).encode()
    if binary:
        raise words.bad(
            f"{escape[0][:2]} stands for a character, and bytes have none; write its bytes as \\x..", position
        )
    code = int(escape["u"] or escape["U"], 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise words.bad(f"{escape[0]} is no character of Unicode", position)
    return chr(code).encode()
