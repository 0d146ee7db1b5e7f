"""A table of a reward book: with colours on a terminal, plain columns elsewhere. Knows no rewards."""

from __future__ import annotations

from collections.abc import Sequence

from .columns import columns

__all__ = ["by_number", "told", "visible"]


def by_number(name: str) -> tuple[bool, int, str]:
    """What to sort names of nodes by: numbers by their size, and then the others.

    >>> sorted(["edge-0", "10", "2"], key=by_number)
    ['2', '10', 'edge-0']
    """
    number = name.isascii() and name.isdecimal() and len(name) < 100
    return not number, int(name) if number else 0, name


def told(head: Sequence[str], lines: Sequence[Sequence[str]], *, left: int) -> None:
    """Print it; the first `left` columns to the left, numbers to the right, those below 0 in red on a terminal.

    What cannot be printed is shown as its escape: a name with a line break in it is no second row.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [[visible(cell) for cell in line] for line in lines]
    console = Console()
    if not console.is_terminal:  # rich would cut lines to 80 columns
        print("\n".join(columns(head, lines, left=left)))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for at, title in enumerate(head):
        table.add_column(title, justify="left" if at < left else "right", overflow="fold")
    for line in lines:
        # As Text: what a node or a reason is called is never read as markup.
        table.add_row(
            *(Text(cell, style="red" if at >= left and cell.startswith("-") else "") for at, cell in enumerate(line))
        )
    console.print(table)


def visible(text: str) -> str:
    r"""The text with escapes for what cannot be printed.

    >>> print(visible("a\tb"))
    a\tb
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
