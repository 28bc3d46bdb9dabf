"""The `rdlite` command: one module parses, the others do what a command says.

Exit codes: 0 all good, 1 wrong usage or nothing done, 3 some inputs failed, 130 interrupted (by
Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from rdlite.cli.exits import (
    FAILED,
    INTERRUPTED,
    OK,
    drop_unwritable,
    interruptible,
    nobody_reads,
    prepare_streams,
    silence,
)
from rdlite.cli.parser import make_parser
from rdlite.errors import RdliteError
from rdlite.wording import one_sentence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: The help or the version was asked for, or the arguments cannot be used; its
            code is the exit code.
    """
    if not prepare_streams():
        return FAILED
    try:
        with interruptible():
            code = _run(argv)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        print("rdlite: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (RdliteError, ImportError) as error:
        print(f"rdlite: error: {error}", file=sys.stderr)
    except OSError as error:
        if nobody_reads(error):  # whoever read the detections has seen enough
            silence(sys.stdout)
            return OK
        where = "" if error.filename else "output: "
        print(f"rdlite: error: {where}{one_sentence(error)}", file=sys.stderr)
    drop_unwritable()
    return FAILED


def _run(argv: Sequence[str] | None) -> int:
    parser = make_parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.exit(FAILED, parser.format_help())
    options = vars(parser.parse_args(argv))
    module, name = options.pop("run").split(":")
    # The libraries that a command needs are loaded only now: `--help` answers at once.
    code: int = getattr(importlib.import_module(f"rdlite.cli.{module}"), name)(**options)
    return code
