"""Strategies for the values of the protocol."""

from __future__ import annotations

from hypothesis import strategies as st

from angos.sansio.oci.digest import HEX_LENGTH, Digest
from angos.sansio.oci.reference import Namespace, Tag

ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyz0123456789"


def digests() -> st.SearchStrategy[Digest]:
    """Any digest that content can be stored under."""
    return st.sampled_from(sorted(HEX_LENGTH)).flatmap(
        lambda algorithm: st.text(
            "0123456789abcdef", min_size=HEX_LENGTH[algorithm], max_size=HEX_LENGTH[algorithm]
        ).map(lambda text: Digest(algorithm, text))
    )


def tags() -> st.SearchStrategy[Tag]:
    """Any tag."""
    return st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True).map(Tag)


def namespaces() -> st.SearchStrategy[Namespace]:
    """Namespaces of one to four components, with every separator."""
    word = st.text(ALPHANUMERIC, min_size=1, max_size=6)
    component = st.tuples(
        word, st.lists(st.tuples(st.sampled_from([".", "_", "__", "-", "--"]), word), max_size=2)
    ).map(lambda found: found[0] + "".join(separator + rest for separator, rest in found[1]))
    return st.lists(component, min_size=1, max_size=4).map(lambda components: Namespace("/".join(components)))
