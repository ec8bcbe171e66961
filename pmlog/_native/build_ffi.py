"""Write the C file of the extension module pmlog._core.

The binding's declarations are the headers' own text: what stands in `layout.h` and `pml.h`
between lines `/* cdef: begin */` and `/* cdef: end */`.
So there is no second copy of a layout or of a signature that could go stale.

Within these lines:

- comments, `_Static_assert`, `static_assert`, `#include` and `__attribute__((…))` are left out;
- `#define NAME 64` is declared with its value, which the compiler then compares;
- `#define NAME expression` over integers and `PML_` names is declared, the compiler gives the value;
- any other `#define` is left out;
- `#if PML_TESTING` or `#ifdef PML_TESTING` … `#endif` is kept if `--define PML_TESTING` is given;
- any other conditional is an error, since both of its branches would be declared.
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import cffi

HEADERS = ("layout.h", "pml.h")

BEGIN = "/* cdef: begin */"
END = "/* cdef: end */"

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_STATIC_ASSERT = re.compile(r'\b(?:_Static_assert|static_assert)\b(?:[^;"]|"(?:[^"\\]|\\.)*")*;')
_ATTRIBUTE = re.compile(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)")
_CONTINUATION = re.compile(r"\\\n")
_DEFINE = re.compile(r"#\s*define\s+(?P<name>\w+)(?P<value>\s.*)?$")
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|\d+)[uUlL]*$")
_INTEGER_EXPRESSION = re.compile(
    r"(?:0[xX][0-9a-fA-F]+[uUlL]*|\d+[uUlL]*|PML_[A-Z0-9_]+|U?INT(?:8|16|32|64)_C"
    r"|u?int(?:8|16|32|64)_t|<<|>>|[-+*/%&|~()]|\s)+$"
)
_CONDITIONAL = re.compile(r"#\s*(?P<word>ifdef|ifndef|if|elif|else|endif)\b\s*(?P<condition>.*)$")


def sections(text: str, name: str) -> Iterator[str]:
    """Yield what stands between the markers of one header.

    Args:
        text: The header.
        name: Its name, for messages.

    Yields:
        The text of each marked section.

    Raises:
        SystemExit: A marker has no partner, or there is no section.
    """
    lines: list[str] | None = None
    found = False
    for number, line in enumerate(text.splitlines(), 1):
        marker = line.strip()
        if marker == BEGIN:
            if lines is not None:
                raise SystemExit(f"{name}:{number}: '{BEGIN}' inside a section")
            lines = []
        elif marker == END:
            if lines is None:
                raise SystemExit(f"{name}:{number}: '{END}' without its begin")
            yield "\n".join(lines)
            lines, found = None, True
        elif lines is not None:
            lines.append(line)
    if lines is not None:
        raise SystemExit(f"{name}: the last '{BEGIN}' has no end")
    if not found:
        raise SystemExit(f"{name}: no '{BEGIN}'")


def declarations(section: str, name: str, defined: Iterable[str]) -> str:
    """Return the declarations of a section in the form that cffi reads.

    Args:
        section: Text between two markers.
        name: The header's name, for messages.
        defined: Names for which `#ifdef` holds.

    Returns:
        C declarations without preprocessor lines other than integer constants.

    Raises:
        SystemExit: The section has a conditional on another name than `PML_TESTING`.
    """
    text = _COMMENT.sub(" ", section)
    text = _CONTINUATION.sub(" ", text)
    text = _STATIC_ASSERT.sub("", text)
    text = _ATTRIBUTE.sub("", text)
    kept: list[str] = []
    in_conditional, is_kept = False, True
    for line in text.splitlines():
        code = line.strip()
        if match := _CONDITIONAL.match(code):
            word, condition = match["word"], match["condition"].strip()
            if word == "endif" and in_conditional:
                in_conditional, is_kept = False, True
            elif word in {"if", "ifdef"} and condition == "PML_TESTING" and not in_conditional:
                in_conditional, is_kept = True, condition in defined
            else:
                raise SystemExit(f"{name}: '{code}' can't stand in a cdef section")
        elif is_kept and code.startswith("#"):
            if define := _constant(code):
                kept.append(define)
        elif is_kept and code:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _constant(code: str) -> str | None:
    match = _DEFINE.match(code)
    if match is None:
        return None
    value = (match["value"] or "").strip()
    if _INTEGER.match(value):
        return f"#define {match['name']} {value}"
    if value and _INTEGER_EXPRESSION.match(value):
        return f"#define {match['name']} ..."
    return None


def main() -> None:
    """Write the binding to the path given as argument."""
    parser = argparse.ArgumentParser(description="Write the C file of pmlog._core.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--define", action="append", default=[], metavar="NAME")
    parser.add_argument("--headers", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    options = parser.parse_args()

    ffi = cffi.FFI()
    for header in HEADERS:
        text = (options.headers / header).read_text(encoding="utf-8")
        for section in sections(text, header):
            ffi.cdef(declarations(section, header, options.define))
    ffi.set_source("pmlog._core", "".join(f'#include "{header}"\n' for header in HEADERS))
    ffi.emit_c_code(str(options.output))


if __name__ == "__main__":
    main()
