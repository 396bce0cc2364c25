"""A SLURM of its own on this one machine, for as long as a test session: real daemons, virtual nodes, private ports.

Nothing outside the given folder is touched: SLURM_CONF points every command at the configuration in it, munge has its own
key and socket there, and the daemons run in the foreground as children, so that stopping them is stopping processes.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

NEEDED = ("sbatch", "srun", "squeue", "scontrol", "slurmctld", "slurmd", "munged")
FOR_ACCOUNTING = ("sacct", "sacctmgr", "slurmdbd", "mariadbd", "mariadb-install-db")
INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge slurmdbd mariadb-server"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def missing(programs: Sequence[str] = NEEDED) -> list[str]:
    """The programs of this list that are not installed."""
    return [name for name in programs if shutil.which(name, path=PATH) is None]


def why_not() -> str | None:
    """Why no cluster can be brought up here, or None."""
    if lacking := missing():
        return f"no SLURM here ({', '.join(lacking)} missing): {INSTALL}"
    if os.geteuid() != 0:
        return "slurmd starts other users' jobs, so this test needs root"
    return None


def wait_for(what: str, seconds: float, ready: Callable[[], object]) -> None:
    """Ask until it is so. Raises TimeoutError, which names what never came."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """`nodes` virtual nodes of `cpus` cores each (oversold: they share this machine's).

    Two partitions hold all of them: `main`, the default, whose jobs are requeued when `urgent` needs their place.
    Without `accounting`, finished jobs are forgotten after `min_job_age` seconds, as on a cluster that keeps no books.
    """

    def __init__(
        self, folder: Path, nodes: int = 2, cpus: int = 2, accounting: bool = True, min_job_age: int = 300
    ) -> None:
        self.folder, self.cpus, self.accounting, self.min_job_age = folder, cpus, accounting, min_job_age
        self.host = socket.gethostname().split(".")[0]
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.ports = {name: free_port() for name in ("slurmctld", "slurmdbd", *self.nodes)}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))}
        self.environment = {**inherited, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}

    def up(self) -> None:
        """Start everything and wait until all nodes are idle."""
        for name in ("state", "log", "pid", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        munge = {"socket": "munge.socket", "key-file": key.name, "log-file": "log/munged", "pid-file": "pid/munged"}
        files = [f"--{flag}={self.folder / file}" for flag, file in {**munge, "seed-file": "munge.seed"}.items()]
        self.daemon("munged", ["munged", "--foreground", "--force", *files])
        wait_for("munge", 20, lambda: self.tells(["munge", "-n", "-S", str(self.folder / "munge.socket")]))
        self._configure()
        if self.accounting:
            self._account()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)

    def down(self) -> None:
        """Stop everything that `up` started, and what is left of jobs."""
        with contextlib.suppress(TimeoutError):
            self.clear()
        for node in self.nodes:
            self.lose(node)
        for name in reversed(list(self.daemons)):
            self.stop(name)

    def clear(self) -> None:
        """Cancel all jobs and wait until the queue is empty."""
        self.tells(["scancel", "--user", getpass.getuser()])
        self.quiet(150)  # one that ended while the controller was down holds its place for a minute more

    def quiet(self, seconds: float = 60) -> None:
        """Wait until no job waits or runs: a job's process ends a little later than its cell."""
        wait_for("the jobs' end", seconds, lambda: self.tells(["squeue"]) and not self.say("squeue", "--noheader"))

    def daemon(self, name: str, command: Sequence[str], **environment: str) -> None:
        """Start a daemon in the foreground, with a log of its own."""
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, env={**self.environment, **environment}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def stop(self, name: str) -> None:
        """End one daemon, by force if it does not listen."""
        process = self.daemons.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def start_controller(self) -> None:
        """Start slurmctld, also after `stop("slurmctld")`: it takes up what it had saved."""
        self.daemon("slurmctld", ["slurmctld", "-D", "-f", str(self.folder / "slurm.conf")])
        wait_for("the controller", 30, lambda: self.tells(["scontrol", "ping"]))

    def start_node(self, node: str) -> None:
        """Start a node, also after `lose`, and wait until it takes jobs."""
        self.daemon(node, ["slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf")])
        wait_for(f"{node} to be ready", 60, lambda: self.node_state(node) in ("idle", "mixed", "allocated"))

    def node_state(self, node: str) -> str:
        """`idle`, `mixed`, `allocated`, `down`, ..., with a mark behind it where the node does not answer."""
        return self.say("sinfo", "--noheader", "--Node", "--nodes", node, "--partition", "main", "--format", "%T")

    def lose(self, node: str) -> None:
        """The power fails: the node's daemon, its job steps and all of their processes are gone at once."""
        daemon = self.daemons.pop(node, None)
        victims = ([daemon.pid] if daemon else []) + self._processes(node)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: none of them can still tell the controller
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        if daemon:
            daemon.wait()

    def say(self, *command: str) -> str:
        """What a command prints; nothing if it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout.strip()

    def tells(self, command: Sequence[str]) -> bool:
        """Whether a command succeeds."""
        return subprocess.run(command, env=self.environment, capture_output=True).returncode == 0

    def jobs(self, form: str = "%i %T") -> list[str]:
        """One line for every job of the queue, array jobs one by one, finished ones too."""
        return self.say("squeue", "--noheader", "--array", "--states", "all", "--format", form).splitlines()

    def _processes(self, node: str) -> list[int]:
        """The processes of a node's jobs, and the step daemons above them."""
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"SLURMD_NODENAME={node}".encode() not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                found.add(int(folder.name))
                parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
                if Path(f"/proc/{parent}/comm").read_text().strip() == "slurmstepd":
                    found.add(int(parent))
        return sorted(found)

    def _configure(self) -> None:
        """Write slurm.conf and gres.conf."""
        folder, user = self.folder, getpass.getuser()
        books = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            books = (
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStoragePort={self.ports['slurmdbd']}\nAccountingStoragePass={folder / 'munge.socket'}"
            )
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={self.ports[node]} "
            f"CPUs={self.cpus} RealMemory=16000 Gres=gpu:2 State=UNKNOWN"
            for node in self.nodes
        )
        # Two devices that exist everywhere stand for two GPUs; nothing opens them.
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        (folder / "slurm.conf").write_text(
            f"""ClusterName=lgapbench
SlurmctldHost={self.host}(127.0.0.1)
SlurmctldPort={self.ports["slurmctld"]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A credential that has expired may be used again: otherwise a requeued job waits for two minutes.
AuthInfo=socket={folder / "munge.socket"},cred_expire=5
StateSaveLocation={folder / "state"}
SlurmdSpoolDir={folder / "spool"}/%n
SlurmctldPidFile={folder / "pid"}/slurmctld
SlurmdPidFile={folder / "pid"}/%n
SlurmctldLogFile={folder / "log"}/slurmctld
SlurmdLogFile={folder / "log"}/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{books}
# Everything that is minutes on a real cluster is seconds here.
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=5
MinJobAge={self.min_job_age}
JobRequeue=1
ReturnToService=2
# Fewer than the cells of the tests' table, so that a table is more than one array.
MaxArraySize=5
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=9 PreemptMode=OFF MaxTime=INFINITE State=UP
"""
        )

    def _account(self) -> None:
        """Keep books: a private MariaDB and slurmdbd above it."""
        data, door = self.folder / "db", self.folder / "db.socket"
        data.mkdir()
        user = getpass.getuser()
        install = ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}", "--skip-test-db"]
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={data}", *install],
            env=self.environment,
            check=True,
            capture_output=True,
        )
        small = ["--skip-networking", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
        quick = ["--innodb-flush-log-at-trx-commit=0", f"--pid-file={self.folder / 'pid' / 'mariadbd'}"]
        where = [f"--user={user}", f"--datadir={data}", f"--socket={door}"]
        self.daemon("mariadbd", ["mariadbd", "--no-defaults", *where, *small, *quick])
        query = ["mariadb", "--no-defaults", "-S", str(door), "-e"]
        wait_for("MariaDB", 60, lambda: self.tells([*query, "create database if not exists slurm_acct_db"]))
        settings = self.folder / "slurmdbd.conf"
        settings.write_text(
            f"""AuthType=auth/munge
AuthInfo=socket={self.folder / "munge.socket"}
DbdHost={self.host}
DbdAddr=127.0.0.1
DbdPort={self.ports["slurmdbd"]}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
LogFile={self.folder / "log"}/slurmdbd
PidFile={self.folder / "pid"}/slurmdbd
"""
        )
        settings.chmod(0o600)
        self.daemon("slurmdbd", ["slurmdbd", "-D"], MYSQL_UNIX_PORT=str(door))
        wait_for("slurmdbd", 60, lambda: self.tells(["sacctmgr", "--noheader", "--immediate", "list", "cluster"]))
        self.tells(["sacctmgr", "--noheader", "--immediate", "add", "cluster", "lgapbench"])
