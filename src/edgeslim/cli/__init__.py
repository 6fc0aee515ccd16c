"""The command line: it parses and prints, the library does the work.

Results go to stdout (`--json` for machines), progress and remarks to stderr. Exit 0 done, 1 something the user can
fix (message and hint, no traceback), 2 wrong usage, 3 a check failed (certificate, budget).
"""

from __future__ import annotations

import errno
import sys

from edgeslim.errors import EdgeslimError

from .app import app
from .screen import print_error

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
"""What a disk or its owner refuses; any other OSError that comes this far is a bug and keeps its traceback."""


def main() -> None:
    """Entry point of the `edgeslim` command."""
    try:
        app()
    except EdgeslimError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        place = f"{error.filename} cannot be written" if error.filename else "a file cannot be written"
        print_error(EdgeslimError(f"{place}: {error.strerror}", "free some space, or choose a folder of your own"))
        sys.exit(EdgeslimError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
