"""When the worker command starts an ended process again, when it gives up, and what it costs to wait."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from prewarmkit.cli.worker.arguments import Options, Post
from prewarmkit.cli.worker.exits import CONFIGURATION, FAILED, TEMPORARY, USAGE
from prewarmkit.cli.worker.patience import Patience
from prewarmkit.cli.worker.process import command_of
from prewarmkit.cli.worker.supervisor import Supervisor


def test_the_wait_doubles_from_half_a_second_to_half_a_minute_and_is_never_in_step() -> None:
    patience = Patience()
    waits = [patience.wait_after(-9, ready_seconds=1.0) for _ in range(10)]
    for wait, longest in zip(waits, [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30], strict=True):
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == 10
    for _ in range(2000):
        assert patience.wait_after(-9, ready_seconds=1.0) <= 30


def test_a_life_that_was_long_enough_makes_its_past_forgotten() -> None:
    patience = Patience()
    for _ in range(6):
        patience.wait_after(-9, ready_seconds=59.9)
    assert patience.wait_after(-9, ready_seconds=60.0) <= 0.5
    assert 0.5 <= patience.wait_after(-9, ready_seconds=1.0) <= 1


def test_so_many_failed_starts_in_a_row_are_enough_and_one_that_worked_clears_them() -> None:
    patience = Patience()
    for _ in range(4):
        patience.wait_after(FAILED, ready_seconds=None)
        assert not patience.is_over
    patience.wait_after(-9, ready_seconds=0.1)
    for _ in range(4):
        patience.wait_after(FAILED, ready_seconds=None)
        assert not patience.is_over
    patience.wait_after(FAILED, ready_seconds=None)
    assert patience.is_over


def test_a_process_that_worked_and_dies_is_started_again_without_end() -> None:
    """A medium that kills it runs out of attempts by itself."""
    patience = Patience()
    for _ in range(100):
        patience.wait_after(-11, ready_seconds=0.1)
        assert not patience.is_over


def test_a_failure_that_may_pass_is_waited_for_without_end() -> None:
    patience = Patience()
    for _ in range(100):
        patience.wait_after(TEMPORARY, ready_seconds=None)
        assert not patience.is_over


@pytest.mark.parametrize("code", [USAGE, CONFIGURATION])
def test_a_setup_that_cannot_work_is_over_at_once_unless_it_worked(code: int) -> None:
    patience = Patience()
    patience.wait_after(code, ready_seconds=5.0)
    assert not patience.is_over
    patience.wait_after(code, ready_seconds=None)
    assert patience.is_over


def test_a_machine_that_starts_no_process_is_said_and_given_up(caplog: pytest.LogCaptureFixture) -> None:
    def command(post: Post) -> Sequence[str]:
        return ["/nowhere/python", str(post.number)]

    def patience() -> Patience:
        return Patience(first_seconds=0.001, most_failed_starts=2)

    assert Supervisor(Options(module="app", factory="pool"), command, patience).run() == FAILED
    assert caplog.text.count("worker 1 cannot be started: [Errno 2]") == 2


def test_a_worker_is_started_with_what_the_supervisor_was_told_and_by_the_same_interpreter() -> None:
    """`-W error -X dev` before ``-m`` hold for the workers too."""
    script = (
        "import sys; sys.orig_argv[1:] = ['-W', 'error', '-X', 'dev', '-m', 'prewarmkit', 'worker', 'a:b'];"
        "from prewarmkit.cli.worker.process import command_of;"
        "from prewarmkit.cli.worker.arguments import Options, Post;"
        "print(*command_of(Options(module='a', factory='b', grace_seconds=2.5, log_level='debug'))(Post(3, 7))[1:])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        "-W error -X dev -m prewarmkit worker a:b --grace 2.5 --kill-after 20 --log-level debug --post 3:7"
    )
    assert command_of(Options(module="a", factory="b"))(Post(1, 5))[0] == sys.executable


def test_the_supervisor_loads_neither_the_library_nor_an_event_loops_layers() -> None:
    """It waits for months beside the host's app, and nothing of the host's can bring it down."""
    script = (
        "import sys, prewarmkit.cli.main, prewarmkit.cli.worker.supervisor;"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] in {'anyio', 'httpx', 'psycopg', 'sqlite3'}"
        " or name in {'prewarmkit.pool', 'prewarmkit.stores', 'prewarmkit.targets'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
