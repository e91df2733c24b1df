"""Text of others made harmless for a terminal, which takes control characters for commands.

What is shown, and in which words, does not belong here.
"""

from __future__ import annotations

__all__ = ["harmless", "one_line"]

#: C0 but tab and line feed, DEL, C1; and what turns the direction of writing, which hides text from its reader (Unicode
#: Standard Annex 9).
COMMANDS = (*range(0x00, 0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F),
            *range(0x2066, 0x206A))
ESCAPED = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in COMMANDS}
ON_ONE_LINE = {**ESCAPED, 0x09: " ", 0x0A: " ", 0x0D: " ", 0x2028: " ", 0x2029: " "}


def harmless(text: str) -> str:
    """The same text, its control characters written as \\x1b and the like; tabs and line feeds stay."""
    return text if text.isprintable() else text.translate(ESCAPED)


def one_line(text: str) -> str:
    """As `harmless`, with blanks for tabs and line ends."""
    return text.translate(ON_ONE_LINE).strip()
