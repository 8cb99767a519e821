"""The storage of a session: the run that is there is taken over, held, and mirrored until the session ends."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from nls_tune.errors import InputError
from nls_tune.plan.plan import SearchPlan
from nls_tune.plan.settings import SearchSettings
from nls_tune.report.text import amount
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.owner import living_owner, owned
from nls_tune.runs.run_json import RunJson
from nls_tune.session.beginning import begin_run, refuse_others

if TYPE_CHECKING:
    from nls_tune.runs.storage.mirror import Mirror
    from nls_tune.runs.storage.store import Store

#: So many files that could not be uploaded are named.
_NAMED = 5


class SessionStorage:
    """The run directory of a session, and the storage that mirrors it; without ``--storage`` the directory alone.

    The storage must work before anything starts. Afterwards it may be lost at any time: the session goes on.

    Attributes:
        store: What is behind the URL; None without one.
        mirror: What uploads the run; None before it has begun.

    Raises:
        InputError: If the storage cannot be written and read.
    """

    def __init__(self, settings: SearchSettings, run: RunDirectory, say: Callable[[str], None]) -> None:
        from nls_tune.runs.storage.store import Store

        self._settings, self._run, self._say = settings, run, say
        self.store: Store | None = None if settings.storage is None else Store(settings.storage)
        self.mirror: Mirror | None = None
        if self.store is not None:
            self.store.check()

    def is_finished(self) -> bool:
        """Return whether the run has finished, as far as its run.json says, here or else in the storage."""
        from nls_tune.runs.storage.copies import stored_run_json

        if self._run.run_json.exists():
            return self._run.read_json().status == "finished"
        content = None if self.store is None else stored_run_json(self.store)
        return content is not None and content.status == "finished"

    @contextmanager
    def begun(self, plan: SearchPlan) -> Iterator[RunJson]:
        """Make or take over the run, hold it here and in the storage, and mirror it until the block ends.

        Raises:
            InputError: If another process holds it, or it is a run with other settings.
        """
        self._run.create()
        with self._run.lock(), ExitStack() as stack:
            if self.store is None:
                yield begin_run(plan, self._run)
                return
            known = self._take_over(plan, self.store, stack)
            content = begin_run(plan, self._run)
            self._start(self.store, known, stack)
            yield content

    def _take_over(self, plan: SearchPlan, store: Store, stack: ExitStack) -> set[str]:
        from nls_tune.runs.storage.copies import stored_run_json, take_over

        if (owner := living_owner(store)) is not None:
            raise InputError(
                f"another search ({owner}) is writing to {store.shown}; wait for it, stop it, or give another --storage"
            )
        if (there := stored_run_json(store)) is not None:
            refuse_others(there, plan, store.shown, "--storage")
        store.look(lambda: stack.enter_context(owned(store)))
        return take_over(store, self._run, states=not self._settings.keeps_states_in_storage)

    def _start(self, store: Store, known: set[str], stack: ExitStack) -> None:
        from nls_tune.runs.storage.mirror import Mirror

        self.mirror = Mirror(self._run.path, store, self._say, known)
        self.mirror.start()
        stack.callback(self._close, store, self.mirror)

    def _close(self, store: Store, mirror: Mirror) -> None:
        """Upload the rest, and say where it is, or what is missing there."""
        missing = mirror.close()
        if not missing:
            self._say(f"Stored: {store.shown}")
            return
        more = ", ..." if len(missing) > _NAMED else ""
        again = f"nls-tune resume {shlex.quote(str(self._run.path))}"
        self._say(
            f"{amount(len(missing), 'file')} could not be uploaded to {store.shown} ({mirror.reason}): "
            f"{', '.join(missing[:_NAMED])}{more}. To try again: {again}"
        )
