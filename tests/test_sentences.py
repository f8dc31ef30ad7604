"""The table of phrases that `make check` keeps out: each phrase is found in every kind of sentence, and only there."""

from __future__ import annotations

import pytest
import yaml

from scripts import words

ROWS = yaml.safe_load(words.TABLE.read_text(encoding="utf-8"))
SENTENCES = ("it can't be had from there", "a folder of ours", "a path of one's own", "apt and its like",
             "the rule that is gone by the plan", "the decision hangs on it", "it lies on /data", "what is so",
             "all of it", "that which was shown", "whom it trusts", "hence the hash", "what came of it",
             "they were found wanting", "it broke under our hands", "it comes apart", "on its way out",
             "stumbled over a line", "nor is it one", "be it large", "amongst hosts",
             "it belongs to whoever owns the kernel", "that is waited for", "it goes round it", "a part came torn",
             "bytes that are to come")


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_phrase_is_found_in_a_comment_a_docstring_and_a_message_that_go_over_lines(sentence: str) -> None:
    parts = sentence.split()
    for text in (f"# {sentence}", "# " + "\n# ".join(parts), '"""' + "\n    ".join(parts) + '"""',
                 'f"' + ' "\n    f"'.join(parts) + '"'):
        assert words.found(text, words.table()), text
    assert next(line for line, _, _ in words.found(f"x = 1\n\n# {sentence}\n", words.table())) == 3


def test_each_row_has_a_reason_and_another_word_and_each_is_tried_above() -> None:
    assert all(set(row) == {"phrase", "why", "instead"} and all(row.values()) for row in ROWS)
    tried = {hit.why for sentence in SENTENCES for _, _, hit in words.found(sentence, words.table())}
    assert len([row for row in ROWS if row["why"] not in tried]) <= 2, "is had · the same reason twice"
    plain = "def whose(self): return self.allof_it  # its size; behave; thusly named; whomsoever"
    assert words.found(plain, words.table()) == []
