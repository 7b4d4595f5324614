"""Rules of the configuration: read once, checked, and turned into expressions of the core.

cel-python (import ``celpy``) is the parser and nothing else. Only `CELParser` is used, and only when there is a rule:
its environments raise the recursion limit of the whole process, its runners log every activation that fails, and one of
them mixes up the evaluations of threads. The parser itself does none of this. It is one object for the process, kept
in a class attribute, and whoever made it first chose the class of its trees; only what all of those have is used here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from angos.runtime.config.cel_names import ANY, Names, Shape
from angos.runtime.config.cel_text import BadRule, Words, read_words
from angos.runtime.config.cel_tree import Reader
from angos.sansio.access.expression_nodes import Expression

if TYPE_CHECKING:
    from lark import Tree

__all__ = ["ANY", "BadRule", "Shape", "parse_rule"]


def parse_rule(
    text: str,
    *,
    variables: Mapping[str, Shape] | Collection[str],
    functions: Mapping[str, int] = MappingProxyType({}),
    checked: bool = True,
) -> Expression:
    """The expression that `text` stands for, to be given to `compile_expression`. Raises `BadRule`.

    `variables` are those an activation will have, each with its shape; `functions` are the host's, each with the number
    of arguments it takes. Any other name is refused here, unless `checked` is false: then it fails when it is
    evaluated, as in the language definition without its static check.
    """
    words = read_words(text)
    shapes = variables if isinstance(variables, Mapping) else dict.fromkeys(variables, ANY)
    return Reader(words, Names(words, shapes, functions, checked)).read(_parse(words))


def _parse(words: Words) -> Tree[Any]:
    from celpy.celparser import CELParseError, CELParser

    try:
        return CELParser().parse(words.blanked)
    except CELParseError as error:
        raise _unexpected(words, error) from None


def _unexpected(words: Words, error: Exception) -> BadRule:
    """The parser's message is a list of the names of its grammar; the place is what helps."""
    cause: Any = error.__context__
    token: Any = getattr(cause, "token", None)
    if token is None or token.start_pos is None or token.type == "$END":
        return words.bad("the rule ends too early: something is missing here", len(words.blanked.rstrip()))
    advice = {"and": ": conditions are joined with &&", "or": ": conditions are joined with ||"}.get(str(token), "")
    return words.bad(f"unexpected {words.word_at(token.start_pos)}{advice}", token.start_pos)
