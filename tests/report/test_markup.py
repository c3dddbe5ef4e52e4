"""Nothing that is shown can become part of the page's own markup."""

from html.parser import HTMLParser

import pytest

from deepavfusion.report.markup import element, fragment


class Recorder(HTMLParser):
    """What a parser of HTML sees: elements with attributes, and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("text", ["<b>&amp;", '" onclick="x', "' &#39;", "</script>", "-->"])
def test_text_and_attributes_come_out_as_they_went_in(text: str) -> None:
    seen = Recorder()
    seen.feed(element("p", "a ", text, title=text))
    seen.close()
    assert seen.elements == [("p", {"title": text})]
    assert "".join(seen.texts) == f"a {text}"


def test_built_markup_is_not_escaped_again_and_joined_text_is() -> None:
    inner = element("b", "1 < 2")
    assert element("p", inner) == "<p><b>1 &lt; 2</b></p>"
    assert "&lt;b&gt;" in element("p", inner + " and more")  # a sum of strings is text: escaped rather than trusted
    assert fragment(None, ["x", [inner]]) == "x<b>1 &lt; 2</b>"


def test_attributes_without_value_and_left_out() -> None:
    assert element("input", checked=True, hidden=False, value=0, aria_label=None) == '<input checked value="0">'
    with pytest.raises(ValueError, match="no children"):
        element("img", "text")
