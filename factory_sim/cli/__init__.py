"""The command `factory-sim`: parse, call, print. Results go to stdout, progress and messages to stderr."""

import os
import sys


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
        print("interrupted; nothing was written", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
