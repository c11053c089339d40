from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.evaluation.base import SampleOutcome
from vlmtrain.report.sample_page import PageHeading, render_page


class Reader(HTMLParser):
    """Collects tags, attributes and text, and whether tags are closed in order."""

    void = frozenset({"meta", "img", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.words, self.attributes, self.stack = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.void:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


ALLOWED_TAGS = frozenset(
    {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "pre", "section", "div", "article"}
    | {"img", "span", "i", "label", "input", "footer"}
)
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"
texts = st.text(alphabet=st.sampled_from(list("<>&\"'/= ab\n{}")), max_size=30)


@settings(max_examples=60, deadline=None)
@given(text=texts, reason=texts, reference=texts, key=texts, split=texts)
def test_every_text_is_escaped(text, reason, reference, key, split):
    outcome = SampleOutcome("captioning", split, key, b"", text, [reference], False, reason, text, b"", text, True)
    page = Reader(render_page([outcome], PageHeading(text, reason, reference, {}, key)))
    assert page.stack == []
    assert set(page.tags) <= ALLOWED_TAGS
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert ("title", key) in page.attributes


def test_hostile_captions_stay_text(make_outcome):
    page = render_page([make_outcome(HOSTILE)], PageHeading("t"))
    assert "<script" not in page and "onerror=alert(1)>" not in page.replace("&gt;", "")
    assert HOSTILE in "".join(Reader(page).words)


def test_the_page_needs_nothing_from_outside(make_outcome, jpeg):
    outcome = make_outcome(control_image=jpeg("red"), control_text="a cat", control_correct=True, correct=True)
    page = Reader(render_page([outcome], PageHeading("t")))
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == 2 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "still true of the picture above" in page.words
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_it_shows_verdict_reason_reference_and_figures(make_outcome):
    outcomes = [
        make_outcome("a cat", correct=False, reason="the picture has no cat"),
        make_outcome("a dog", correct=True, split="compositional"),
        make_outcome("", split="compositional"),
    ]
    metrics = {"language": {"test/caption_accuracy": 0.96, "test/control_caption_accuracy": 0.01}}
    words = Reader(render_page(outcomes, PageHeading("blip2_opt", "tiny", "vlmtrain x", metrics))).words
    for expected in (
        "blip2_opt", "vlmtrain x", "96.0 %", "with another image 1.0 %", "Captioning · test",
        "Captioning · compositional", "a cat", "the picture has no cat", " a dog", "not judged",
    ):  # fmt: skip
        assert expected in words
    assert words.count(" a dog") == 2  # where the caption is the reference, it is not repeated


def test_a_page_without_samples_says_so():
    assert "No samples" in render_page([], PageHeading("t"))
