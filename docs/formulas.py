"""Conversion of TeX formulas to MathML, which browsers draw without a script."""

import re
from html import unescape

import latex2mathml.converter


def mathml(tex: str, display: str) -> str:
    """Return a formula as MathML; display is "inline" or "block".

    The converter sizes bars and large brackets correctly only if they are marked as left and right,
    has another name for `aligned`, raises a prime that is already raised, and aligns columns by an
    attribute that only Firefox reads.
    """
    source = tex.replace("{aligned}", "{align*}").replace(r"\bigl", r"\left")
    source = source.replace(r"\bigr", r"\right")
    source = re.sub(r"(?<!\\left)(\\l[vV]ert)", r"\\left\1", source)
    source = re.sub(r"(?<!\\right)(\\r[vV]ert)", r"\\right\1", source)
    drawn = latex2mathml.converter.convert(source, display=display)
    if "\\" in drawn or "<mi>&<" in drawn:  # unknown commands are left unchanged
        raise ValueError(f"latex2mathml cannot draw the formula {tex}")
    primed = r"<msup>(<m\w>[^<]*</m\w>)<mi>(&#x0203[2-4];)</mi></msup>"
    drawn = re.sub(primed, r'<mrow>\1<mo lspace="0" rspace="0">\2</mo></mrow>', drawn)
    drawn = re.sub(
        r'columnalign="(\w+)"', r'columnalign="\1" style="text-align: -webkit-\1"', drawn
    )
    return f'<div class="formula">{drawn}</div>' if display == "block" else drawn


def with_formulas(html: str) -> str:
    """Convert the formulas that the Markdown extension arithmatex has marked as TeX."""

    def formula(match: re.Match) -> str:
        tex = unescape(match[2]).strip()[2:-2].strip()
        return mathml(tex, "block" if match[1] == "div" else "inline")

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', formula, html, flags=re.DOTALL)
