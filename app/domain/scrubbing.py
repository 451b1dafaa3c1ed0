"""Taking out of a text what its reader is not to see: paths of this machine, secrets, and what steers a terminal."""

import re

LONGEST_LINE = 1_000
"""Characters of one line; what is longer is data and no message."""
HIDDEN = "***"
PATH = re.compile(r"(?<![\w:/])(?:[A-Za-z]:)?(?:/[\w.+@-]+){2,}/?")
"""An absolute path; what follows the host of a URL is none."""
PACKAGE_PATH = re.compile(r"(?:/[\w.+@-]+)*/(?:site|dist)-packages/|(?:/[\w.+@-]+)*/lib/python3\.\d+/")
"""What comes before the part of a path that says in which library a line of code stands."""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Sequences of ECMA-48, and control characters other than tab and line feed."""
SECRETS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\b(rk_|whsec_|hf_|gh[pousr]_|github_pat_|glpat-|xox[abpr]-|sk-)[\w+/=.-]{8,}", rf"\1{HIDDEN}"),
        (r"\b(AKIA|ASIA)[0-9A-Z]{16}\b", HIDDEN),
        (r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*", HIDDEN),
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*", HIDDEN),
        (r"(?i)\b(authorization\s*[:=]\s*)(?:[a-z]+\s+)?[^\s,;'\"]+", rf"\1{HIDDEN}"),
        (r"(?i)\b(bearer\s+)[\w+/=.~-]{8,}", rf"\1{HIDDEN}"),
        (r"(://)[^/\s:@]*:[^/\s@]*@", rf"\1{HIDDEN}@"),
        (
            r"(?i)((?:passw(?:or)?d|secret|token|api[_-]?key|access[_-]?key|credential|signature)[\w-]{0,40}"
            r"['\"]?\s{0,4}[=:]\s{0,4}['\"]?)[^\s,;&'\"}\])]{4,}",
            rf"\1{HIDDEN}",
        ),
    )
)
"""What secrets look like: keys of this service and of others known by how they begin, and whatever is called one."""


def without_paths(text: str) -> str:
    """``text`` with absolute paths cut to their last part."""
    return PATH.sub(lambda match: match.group().rstrip("/").rpartition("/")[2], text.replace("file://", ""))


def scrubbed(line: str) -> str:
    """One line of output, fit to be shown. Of a path the part within its library is kept."""
    line = CONTROL.sub("", line)[:LONGEST_LINE]
    for pattern, replacement in SECRETS:
        line = pattern.sub(replacement, line)
    return without_paths(PACKAGE_PATH.sub("", line))
