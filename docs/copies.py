"""The text that the copy button of a code block copies: the input, without prompts or output."""

import doctest
import re
from html import escape, unescape


def typed(text: str) -> str | None:
    """Return the input of a transcript of Python or of a shell; None for any other text."""
    if re.search(r"^ *>>> ", text, re.MULTILINE):
        sources = [example.source for example in doctest.DocTestParser().get_examples(text)]
        blocks = [re.sub(r"(\n .*\n)\Z", r"\1\n", source) for source in sources]
        return "".join(blocks)  # a blank line ends an indented block, as the interpreter needs it
    commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return "\n".join(commands) + "\n" if commands else None


def with_copies(html: str) -> str:
    """Add to each transcript the attribute with the text that the theme's button copies."""

    def block(match: re.Match) -> str:
        text = typed(unescape(re.sub(r"<[^>]*>", "", match["code"])))
        if text is None:
            return match[0]
        return f'{match["start"]} data-copy="{escape(text)}">{match["pre"]}{match["code"]}'

    pattern = r'(?P<start><div class="[^"]*\bhighlight")>(?P<pre><pre[^>]*>)(?P<code>.*?</pre>)'
    return re.sub(pattern, block, html, flags=re.DOTALL)
