"""What the tools share: ``TOOL [VERB] POSITIONAL [key=value ...]``, quick help, one-line errors.

Exit status: 0 done, 2 the user's mistake (one line on stderr), 130 interrupted, 1 anything else. No
torch is imported here, and the tools import the package inside `main`, so that ``--help`` answers
at once.
"""

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vidcomp.config import UserError


def command(
    description: str | None,
    main: Callable[[str, str, list[str]], None],
    *,
    positional: str | None = "CONFIG",
    verbs: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parse the command line and call ``main(verb, positional, overrides)``; never returns.

    `verbs` may stand before the positional; the verb is ``""`` when none is given. A tool without a
    positional gets ``""`` there.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shown = f"[{'|'.join(verbs)}] " if verbs else ""
    parser.usage = f"%(prog)s {shown}{f'{positional} ' if positional else ''}[key=value ...]"
    parser.add_argument("words", nargs="*", metavar="key=value", help="overrides of config keys")
    words: list[str] = parser.parse_args(argv).words
    verb = words.pop(0) if words and words[0] in verbs else ""
    first = ""
    if positional:
        if not words or "=" in words[0]:
            parser.error(f"{positional} is missing (see --help for an example)")
        first = words.pop(0)
    for word in words:
        if "=" not in word:
            known = f", and no verb; verbs: {', '.join(verbs)}" if verbs else ""
            parser.error(f"{word!r} is not key=value{known}")
    try:
        main(verb, first, words)
    except UserError as error:
        sys.exit(_say(str(error), status=2))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted; the same command goes on from the last checkpoint", status=130))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        place = f" while writing {error.filename}" if error.filename else ""
        sys.exit(_say(f"the disk is full{place}; free some room and run the same command again", 2))
    sys.exit(0)


def _say(message: str, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status
