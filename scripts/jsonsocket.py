# SPDX-License-Identifier: GPL-2.0
"""Lines of JSON over a Unix socket: what the emulator's monitor and the guest agent speak."""

import json
import random
import socket
import time


class RemoteError(Exception):
    """The other side answered with an error."""


class JsonSocket:
    """A connection that sends one command at a time and waits for its answer, never longer than told."""

    def __init__(self, path, deadline, alive):
        """Connects to the socket at `path`; `alive` raises when the process behind it is gone."""
        self.alive = alive
        self.buffer = b""
        while True:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.socket.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                self.socket.close()
                alive()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"nobody listens on {path}") from None
                time.sleep(0.02)

    def close(self):
        """Drops the connection."""
        self.socket.close()

    def _line(self, deadline, what):
        """The next line that arrives."""
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer to {what}")
            self.socket.settimeout(min(left, 0.5))
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                self.alive()
                continue
            except OSError as error:
                self.alive()
                raise ConnectionError(f"connection lost at {what}") from error
            if not data:
                self.alive()
                raise ConnectionError(f"connection closed at {what}")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def _send(self, data, deadline):
        """Sends bytes; the other side may read slowly."""
        self.socket.settimeout(max(0.1, deadline - time.monotonic()))
        self.socket.sendall(data)

    def greet_monitor(self, timeout):
        """Takes the monitor's greeting and leaves its negotiation mode."""
        self._line(time.monotonic() + timeout, "the monitor's greeting")
        self.call("qmp_capabilities", timeout=timeout)

    def greet_agent(self, deadline):
        """Waits until the guest agent answers. What an earlier, half-started agent left is skipped."""
        while True:
            number = random.randrange(1 << 48)
            message = json.dumps({"execute": "guest-sync-delimited", "arguments": {"id": number}})
            self._send(b"\xff" + message.encode() + b"\n", deadline)
            retry = min(deadline, time.monotonic() + 1.0)
            try:
                while True:
                    line = self._line(retry, "the agent's greeting")
                    try:
                        if json.loads(line.rpartition(b"\xff")[2]).get("return") == number:
                            return
                    except ValueError:
                        continue
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise

    def call(self, command, timeout=30.0, **arguments):
        """Runs a command and returns its result. Events that arrive in between are dropped."""
        deadline = time.monotonic() + timeout
        message = {"execute": command}
        if arguments:
            message["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._send(json.dumps(message).encode() + b"\n", deadline)
        while True:
            answer = json.loads(self._line(deadline, command))
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RemoteError(f"{command}: {answer['error']['desc']}")
