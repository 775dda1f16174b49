"""How a wrong command line is answered, whichever parser read it: one line that names what is wrong and where help is."""

from __future__ import annotations

import argparse
from typing import NoReturn

EXIT_USAGE = 2


def complaint(command: str, message: str) -> str:
    """The line that says what is wrong with the words after `command`."""
    return f"{command}: {' '.join(message.split()).rstrip('.')}. See {command} --help."


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end the process with exit code 2."""
        self.exit(EXIT_USAGE, f"{complaint(self.prog, message)}\n")
