from dcn_study.show import numbers
from dcn_study.show.numbers import Numbers


def test_each_number_is_glued_once_and_shown_in_the_next_table(monkeypatch):
    glued = []
    monkeypatch.setattr(numbers, "glue", lambda name, value, display: glued.append((name, value, display)))
    found = Numbers()
    found["accuracy"], found["runs"] = 98.7, 6
    assert glued == [("accuracy", 98.7, False), ("runs", 6, False)]
    table = found._repr_html_()
    assert "<td>accuracy</td>" in table
    assert "<td>98.7</td>" in table
    found["seconds"] = 2
    table = found._repr_html_()
    assert "seconds" in table
    assert "accuracy" not in table
    assert glued[-1] == ("seconds", 2, False)
