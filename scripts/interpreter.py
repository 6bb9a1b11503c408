# SPDX-License-Identifier: GPL-2.0
"""The host's side of the interpreter in the guest (guest/rootfs/usr/local/sbin/interpreter), which runs Python scripts."""

import base64
import itertools
import json
import time

from jsonsocket import JsonSocket

# The name of its port in the guest.
PORT = "guest.interpreter"
# Seconds that it may take to start a script.
TIMEOUT = 60


class Interpreter(JsonSocket):
    """A connection to a guest's interpreter."""

    def __init__(self, path, deadline, alive):
        super().__init__(path, deadline, alive)
        self.numbers = itertools.count(1)
        self.ended = {}

    def start(self, script, arguments, patience):
        """Starts a script; returns its number and the number of its process in the guest."""
        deadline = time.monotonic() + TIMEOUT * patience
        number = next(self.numbers)
        request = {"id": number, "script": script, "arguments": [str(argument) for argument in arguments]}
        self._send(json.dumps(request).encode() + b"\n", deadline)
        while True:
            answer = self._answer(deadline, "the start of a script")
            if answer["id"] == number:
                return number, answer["pid"]

    def poll(self, number):
        """The status, output and errors of a script when it has ended, else None."""
        try:
            while number not in self.ended:
                self._answer(time.monotonic() + 0.002, "the end of a script")
        except TimeoutError:
            return None
        answer = self.ended.pop(number)
        return answer["rc"], *(base64.b64decode(answer[key]).decode(errors="surrogateescape") for key in ("out", "err"))

    def _answer(self, deadline, what):
        """Takes the next answer."""
        answer = json.loads(self._line(deadline, what))
        if "rc" in answer:
            self.ended[answer["id"]] = answer
        return answer
