"""`python -m tests.fuzz TARGET [libFuzzer's options]`; `corpus` in place of a target writes it."""

from __future__ import annotations

import sys

from tests.fuzz.targets import CORPUS, TARGETS, write_corpus


def main() -> None:
    """Fuzz one target until its options say that it is enough."""
    name, *options = sys.argv[1:] or ["frame"]
    if name == "corpus":
        write_corpus()
        return
    import atheris

    target = TARGETS[name]
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *options, str(CORPUS / name)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
