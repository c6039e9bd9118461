"""The book is short, by part and by page; `prose` counts, and prints what it counts."""

from prose import APPENDIX, counted, words


def test_the_book_is_short():
    found = counted()
    assert sum(count for *_, count in found) <= 11_000
    assert sum(count for part, _, count in found if part != APPENDIX) <= 4_000
    for _, page, count in found:
        assert count <= (350 if page == "intro" else 900), page


def test_words_of_prose_are_counted_without_tables_code_formulas_and_fold_outs():
    text = """---
myst: nothing
---
# A heading

One {glue:text}`page.ipynb::accuracy:.1f` and `code` $x$ ([link](page.md)), {doc}`page`.

| a | table |
|:--|:--|

```python
import dcn
```

$$
y = x
$$ (eq)

:::{dropdown} A fold-out
Of many words.
:::
"""
    assert words(text) == 8  # A heading, One number and code, link, page
