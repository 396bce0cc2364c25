"""Pages as LaTeX: tables of booktabs to be \\input, with their legend and notes below."""

from __future__ import annotations

from collections.abc import Sequence

from lgap_bench.report.page import Page, Table, legend, shown

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "≤": r"$\leq$", "≥": r"$\geq$", "–": "--", "—": "---",
    "<": r"\textless{}", ">": r"\textgreater{}", "`": r"\textquoteleft{}", "κ": r"$\kappa$", "ε": r"$\varepsilon$",
    "σ": r"$\sigma$", "±": r"$\pm$", "[": "{[}", "]": "{]}", "×": r"$\times$",
}  # fmt: skip


def latex(page: Page) -> str:
    """The page's tables, one below the other; needs the packages booktabs and graphicx."""
    tables = "\n\n".join(_table(each, page) for each in page.tables)
    below = [part for part in (legend(page.tables), *page.notes) if part]
    notes = "\n".join(f"% {line}" for line in below)
    return f"% {page.title}\n% \\usepackage{{booktabs,graphicx}}\n{tables}\n{notes}\n"


def escaped(text: str) -> str:
    """Text that LaTeX prints as it stands; characters that its fonts lack become a question mark."""
    out = "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split()))
    return "".join(letter if ord(letter) < 256 else "?" for letter in out)


def _table(table: Table, page: Page) -> str:
    caption = ". ".join(part for part in (page.title, page.settings, table.caption) if part)
    lines = [
        _row(table.columns),
        r"\midrule",
        *(_row([shown(row.get(c)) for c in table.columns]) for row in table.rows),
    ]
    body = "\n    ".join(lines)
    return (
        "\\begin{table}\n  \\centering\n"
        f"  \\caption{{{escaped(caption)}}}\n"
        "  \\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"  \\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}\n    \\toprule\n    {body}\n    \\bottomrule\n"
        "  \\end{tabular}}\n\\end{table}"
    )


def _row(cells: Sequence[str]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + r" \\"
