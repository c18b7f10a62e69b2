"""Laws of what builds the pages: formulas, what the copy button copies, and links."""

import random
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
from copies import typed, with_copies  # type: ignore  # noqa: E402
from links import wrong_links  # type: ignore  # noqa: E402


def test_a_transcript_of_python_is_copied_without_prompts_and_output():
    text = ">>> def f(x):\n...     return [x,\n...             1]\n>>> f(2)\n[2,\n 1]\n>>> a = 3\n"
    assert typed(text) == "def f(x):\n    return [x,\n            1]\n\nf(2)\na = 3\n"


def test_every_transcript_of_the_pages_runs_without_its_prompts():
    for page in sorted((ROOT / "docs").glob("*.md")):
        for block in page.read_text().split("```pycon\n")[1:]:
            compile(typed(block.split("```")[0]) or "", str(page), "exec")


def test_no_line_within_code_of_a_paragraph_starts_a_list():
    """A code span that a line break cuts before "- x" ends there, and the rest is an item."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for paragraph in text.split("\n\n"):
            lines = paragraph.split("\n")
            for n, line in enumerate(lines[1:], 1):
                within = "\n".join(lines[:n]).count("`") % 2
                assert not (within and re.match(r" *([-*+]|\d+[.)]|#+|>) ", line)), (page, line)


def test_commands_are_copied_without_prompts_and_output():
    text = "$ python a.py\n16 cycles, $ 3\n$ mpiexec -n 2 \\\n    python a.py\n8 cycles\n"
    assert typed(text) == "python a.py\nmpiexec -n 2 \\\n    python a.py\n"


@pytest.mark.parametrize("text", ["x = 1\n", "make docs\n", "level 0  o\n", "a >>> b\n"])
def test_other_blocks_are_copied_as_they_are(text):
    assert typed(text) is None


def test_the_attribute_that_the_button_reads():
    plain = '<div class="highlight"><pre><code>x = 1</code></pre></div>'
    assert with_copies(plain) == plain
    lines = '<span class="gp">&gt;&gt;&gt; </span>f(<span class="s">&quot;&lt;a&quot;</span>)\nout'
    block = f'<div class="language-pycon highlight"><pre><span></span><code>{lines}</code></pre>'
    found = with_copies(plain + block)
    assert found.startswith(plain + '<div class="language-pycon highlight" data-copy="f(')
    assert 'data-copy="f(&quot;&lt;a&quot;)\n"><pre>' in found
    assert found.endswith(f"<code>{lines}</code></pre>")


GOOD = {
    "index.html": '<h1 id="top">x</h1><a href="a/b.html#part">b</a><a href="#top">c</a>'
    '<a href="#">d</a><img src="p.png"><a href="https://example.org/x">e</a>',
    "a/b.html": '<a name="part"></a><a href="../index.html?q=1#top">x</a><a href="mailto:a@b.c">',
    "404.html": '<a href="/index.html">x</a>',
    "p.png": "",
    "s.css": "a { background: url(p.png), url('data:image/png;base64,AA//') }",
}


def site(folder, change):
    for name, text in (GOOD | change).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return list(wrong_links(folder))


def test_right_links_are_not_reported(tmp_path):
    assert site(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('<a href="c.html">', "no such file"),
        ('<a href="a/">', "no such file"),  # a folder does not open as a page where pages are files
        ('<a href="a">', "no such file"),
        ('<a href="a/b.html#other">', "no such anchor"),
        ('<a href="#other">', "no such anchor"),
        ('<img src="q.png">', "no such file"),
        ('<a href="/index.html">', "does not exist where pages are files"),
        ('<script src="https://example.org/x.js"></script>', "nothing from other sites"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "nothing from other sites"),
        ('<meta name="other"><a href="#other">', "no such anchor"),
    ],
)
def test_wrong_links_are_reported(tmp_path, text, reason):
    (sentence,) = site(tmp_path, {"new.html": text})
    assert sentence.startswith("new.html ") and reason in sentence


@pytest.mark.parametrize(
    "address", ["url(https://e.org/f)", "url('//e.org/f')", '@import "http://e"']
)
def test_style_sheets_load_nothing_from_other_sites(tmp_path, address):
    (sentence,) = site(tmp_path, {"t.css": f"a {{ b: {address} }}"})
    assert sentence.startswith("t.css ") and "nothing from other sites" in sentence


def test_one_wrong_link_among_many(tmp_path):
    names = [f"page{number}.html" for number in range(30)]
    pages = {name: "".join(f'<a href="{other}#x" id="x">' for other in names) for name in names}
    missing = random.choice(names)
    del pages[missing]
    found = site(tmp_path, pages)
    assert len(found) == 29 and all(missing in sentence for sentence in found)


def test_formulas():
    pytest.importorskip("latex2mathml")
    from formulas import mathml, with_formulas  # type: ignore

    html = '<p>a <span class="arithmatex">\\(x &lt; y\\)</span> b</p>'
    html += '<div class="arithmatex">\\[\n\\lVert u\' \\rVert^2\n\\]</div>'
    found = with_formulas(html)
    assert found.startswith("<p>a <math") and "<mo>&lt;</mo>" in found.replace("&#x0003C;", "&lt;")
    assert found.endswith("</math></div>") and '<div class="formula"><math' in found
    assert found.count('form="prefix"') == found.count('form="postfix"') == 1
    assert '<mi>u</mi><mo lspace="0" rspace="0">&#x02032;</mo>' in found
    two = mathml(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "block")
    assert two.count("<mtr>") == 2 and two.count('"text-align: -webkit-right"') == 2
    large = mathml(r"\bigl( x \bigr)", "inline")
    assert large.count('form="prefix"') == large.count('form="postfix"') == 1


@pytest.mark.parametrize("tex", [r"a \unheardof b", r"\begin{unheardof} a & b \end{unheardof}"])
def test_a_formula_that_cannot_be_drawn_is_refused(tex):
    pytest.importorskip("latex2mathml")
    from formulas import mathml  # type: ignore

    with pytest.raises(ValueError, match="cannot draw the formula"):
        mathml(tex, "inline")
