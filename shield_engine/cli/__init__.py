"""The command `shield`. The one place besides the dashboard's entry that catches `ShieldError`."""

from __future__ import annotations

import sys

from shield_engine.errors import ShieldError

__all__ = ["main"]


def main() -> None:
    """Run the command line: exit code 0 for done, 1 for an error, 2 for usage."""
    from shield_engine.cli.app import app

    try:
        app()
    except ShieldError as error:
        from shield_engine.cli.output import note, printable

        note(f"error: {printable(str(error))}")
        sys.exit(1)
    except BrokenPipeError:
        # The reader (head, less) has gone; there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's own voice
        sys.exit(1)
