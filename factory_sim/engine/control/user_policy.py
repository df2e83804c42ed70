"""A user's own policy from a file, in a process of its own with a deadline, seeing only what built-in ones see."""

import importlib.util
import multiprocessing
import numbers
import os
import sys
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path

from factory_sim.errors import ScenarioError, closest
from factory_sim.units import DAY_S


class PolicyWorker:
    """A process that answers one view at a time; killed when it does not answer in time."""

    def __init__(self, where: str, file: str, name: str, deadline_s: float):
        self.where, self.deadline_s = where, deadline_s
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_answer, args=(other, file, name), daemon=True)
        self.process.start()
        other.close()
        found = self._receive("while it was loaded", 30.0 + deadline_s)
        if found[0] != "ready":
            self.close()
            raise ScenarioError(f"{where}: {file}:{name} cannot be used: {found[1]}")

    def decide(self, view, rule):
        """The user's answer to a view. Raises ScenarioError that names the time if it raises or takes too long."""
        when = f"on day {view.time_s / DAY_S:.3f}"
        self.pipe.send((view, rule))
        kind, answer = self._receive(when, self.deadline_s)
        if kind == "raised":
            raise ScenarioError(f"{self.where}: raised {answer} {when}")
        return answer

    def _receive(self, when: str, within_s: float):
        try:
            if self.pipe.poll(within_s):
                return self.pipe.recv()
        except (EOFError, OSError):
            self.close()
            raise ScenarioError(f"{self.where}: its process ended {when}") from None
        self.close()
        raise ScenarioError(f"{self.where}: gave no answer within {within_s:g} s {when}; its process was ended")

    def close(self) -> None:
        """End the process."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()


def check_policy(where: str, policy: str, known: Iterable[str], allow_code: bool) -> None:
    """Raise ScenarioError unless `policy` is one of the `known` names, or code of a file that is there and allowed."""
    known = list(known)
    if policy in known:
        return
    if ".py:" not in policy:
        raise ScenarioError(f"{where}: '{policy}' is not known{closest(policy, known)}")
    if not allow_code:
        raise ScenarioError(f"{where}: '{policy}' is code of the scenario's author; run with --allow-code to run it")
    file = policy.rpartition(":")[0]
    if not Path(file).is_file():
        raise ScenarioError(f"{where}: {file}: no such file; give file.py:function")


def user_policy(where: str, spec: str, deadline_s: float) -> PolicyWorker:
    """Start the process for `file.py:function`; raises ScenarioError if there is no such function."""
    file, _, name = spec.rpartition(":")
    return PolicyWorker(where, file, name, deadline_s)


def _answer(pipe: Connection, file: str, name: str) -> None:
    """Load the user's function and answer views until the pipe closes; what it prints goes to stderr."""
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    import factory_sim.engine.control.view
    import factory_sim.inputs.operations  # noqa: F401 (what views are made of, loaded before the deadline counts)

    try:
        spec = importlib.util.spec_from_file_location("user_policy", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        if name not in functions:
            pipe.send(("failed", f"it has no function '{name}'{closest(name, functions)}"))
            return
        function = getattr(module, name)
    except BaseException as error:
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
        return
    pipe.send(("ready", None))
    while True:
        try:
            view, rule = pipe.recv()
        except EOFError:
            return
        try:
            answer = function(view, rule)
            pipe.send(("answer", _plain(answer)))
        except Exception as error:
            pipe.send(("raised", f"{type(error).__name__}: {error}"))


def _plain(answer):
    """A number as Python's own, anything else as its text: nothing of the user's is unpickled outside."""
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        return repr(answer)
    return int(answer) if isinstance(answer, numbers.Integral) else float(answer)
