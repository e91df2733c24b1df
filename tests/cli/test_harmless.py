"""Text of others in a terminal: what is escaped, and what stays as it is."""

from __future__ import annotations

import unicodedata

from wsengine.cli.harmless import harmless, one_line


def test_every_control_character_but_tab_and_line_feed_is_escaped():
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        character = chr(code)
        assert harmless(f"a{character}b") == (f"a{character}b" if character in "\t\n" else f"a\\x{code:02x}b")


def test_what_turns_the_direction_of_writing_is_escaped():
    turning = [chr(code) for code in range(0x110000) if unicodedata.bidirectional(chr(code)) in
               ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")]
    assert len(turning) == 9
    assert all(harmless(one) == f"\\u{ord(one):04x}" for one in turning)


def test_other_text_stays_as_it_is():
    assert harmless("grüße 世界 🙂 \\x1b") == "grüße 世界 🙂 \\x1b"


def test_one_line_is_one():
    assert one_line(" a\r\nb\tc\u2028d\x1b ") == "a  b c d\\x1b"
