"""The command `factory-sim`: parse, call, print. Results go to stdout, progress and messages to stderr."""

import os
import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of the signal."""


def main() -> None:
    """Entry point: bad input ends with one message and exit status 2, an interrupt with 130, never a traceback."""
    from factory_sim.cli.app import app
    from factory_sim.errors import FactorySimError

    try:
        app()
    except FactorySimError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as leave:
        if leave.code == INTERRUPTED:  # typer's word for Ctrl-C
            _interrupted()
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _interrupted() -> None:
    """Leave at once: threads that still play are not waited for; what was being written is gone already."""
    print("interrupted; nothing was written", file=sys.stderr)
    sys.stderr.flush()
    os._exit(INTERRUPTED)
