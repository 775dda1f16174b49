import os
import subprocess

from mms.pidfile import PidFile, Process


def test_what_was_written_is_read_as_a_process_that_runs(tmp_path):
    file = PidFile(tmp_path / "pid")

    assert file.write(os.getpid())
    assert file.write(os.getpid())
    assert (file.read().pid, file.read().alive) == (os.getpid(), True)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "pid"]


def test_the_file_of_another_process_that_runs_is_left_alone_and_that_of_one_that_has_ended_is_taken(tmp_path):
    file = PidFile(tmp_path / "pid")
    with subprocess.Popen(["sleep", "60"]) as other:
        assert file.write(other.pid)
        assert not file.write(os.getpid())
        assert file.read().pid == other.pid
        other.kill()
    assert not file.read().alive
    assert file.write(os.getpid())
    assert file.read().pid == os.getpid()


def test_only_the_file_of_the_process_that_is_meant_is_removed(tmp_path):
    file = PidFile(tmp_path / "pid")
    file.write(os.getpid())

    file.remove(os.getpid() + 1)
    assert file.read() is not None
    file.remove(os.getpid())
    assert file.read() is None


def test_a_process_of_another_boot_or_start_time_is_not_the_one(tmp_path):
    file = PidFile(tmp_path / "pid")
    file.write(os.getpid())
    true = file.read()

    assert not Process(true.pid, true.ticks + 1, true.boot).alive
    assert not Process(true.pid, true.ticks, "another boot").alive
    assert not Process(0).alive
