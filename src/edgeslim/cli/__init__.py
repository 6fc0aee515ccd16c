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

_DISK = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSPC,
    errno.ENOTDIR, errno.EPERM, errno.EROFS,
}  # fmt: skip
"""What a disk, its owner or a path refuses; any other OSError that comes this far is a bug and keeps its traceback."""


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
        place = error.filename or "a file"
        hint = "look at the path, its permissions and the space on the disk"
        print_error(EdgeslimError(f"{place} cannot be read or written: {error.strerror}", hint))
        sys.exit(EdgeslimError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
