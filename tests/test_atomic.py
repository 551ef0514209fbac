"""Leftovers of killed writers and their removal, with real processes."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from keras_trim import atomic

ROOT = pathlib.Path(__file__).parents[1]
# The module is loaded from its path, because importing Keras takes seconds.
WRITER = f"""
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("atomic", {str(ROOT / "keras_trim" / "atomic.py")!r})
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
with atomic.replace_file(sys.argv[1]) as file:
    file.write(b"half of it")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing to `file` in the folder."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def write(path, data=b"all of it"):
    with atomic.replace_file(path) as file:
        file.write(data)


def leftovers(folder):
    return sorted(path.name for path in folder.glob(".keras-trim-*.tmp"))


def make_old(path, seconds):
    then = time.time() - seconds
    for each in (*path.rglob("*"), path):
        os.utime(each, (then, then))


def make_leftover(folder, name, seconds=0):
    path = folder / name
    path.mkdir()
    (path / "file").write_bytes(b"half of it")
    make_old(path, seconds)
    return name


def test_what_a_killed_writer_left_is_removed_by_the_next(writer, tmp_path):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert len(leftovers(tmp_path)) == 1
    write(tmp_path / "another file")
    assert os.listdir(tmp_path) == ["another file"]


def test_a_living_writer_is_left_alone(writer, tmp_path):
    (name,) = leftovers(tmp_path)
    write(tmp_path / "file")
    assert leftovers(tmp_path) == [name]
    make_old(tmp_path / name, 24 * 3600)  # another process may have that id by now
    write(tmp_path / "file")
    assert leftovers(tmp_path) == []


def test_a_writer_in_this_process_is_left_alone(tmp_path):
    with atomic.replace_file(tmp_path / "file") as file:
        (name,) = leftovers(tmp_path)
        make_old(tmp_path / name, 24 * 3600)
        write(tmp_path / "another file")
        file.write(b"all of it")
    assert sorted(os.listdir(tmp_path)) == ["another file", "file"]


def test_a_process_of_the_same_number_is_another_one(tmp_path):
    """In a restarted container, the writer may have the same process id as before."""
    make_leftover(tmp_path, f".keras-trim-{atomic._machine()}-{os.getpid()}-abc_1234.tmp")
    write(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "name", [".keras-trim-abc_1234.tmp", ".keras-trim-00000000-1-abc_1234.tmp"]
)
def test_writers_elsewhere_are_dead_when_they_have_not_written_for_long(name, tmp_path):
    """This covers writers on other machines, and versions that did not record who they are."""
    make_leftover(tmp_path, name, seconds=3600)
    write(tmp_path / "file")
    assert leftovers(tmp_path) == [name]
    make_old(tmp_path / name, 24 * 3600)
    write(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_not_ours_stays(tmp_path):
    names = [".keras-trim-notes", ".keras-trim-a b.tmp", "data.tmp"]
    for name in names:
        make_leftover(tmp_path, name, seconds=24 * 3600)
    write(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "file"])


def test_a_thread_spares_a_folder_that_another_one_just_made(tmp_path, monkeypatch):
    make, cleaner = tempfile.TemporaryDirectory, None

    def made_slowly(*arguments):
        nonlocal cleaner
        folder = make(*arguments)
        cleaner = threading.Thread(target=atomic.remove_leftovers, args=(tmp_path,))
        cleaner.start()
        cleaner.join(0.2)  # it waits until the folder is listed
        return folder

    monkeypatch.setattr(tempfile, "TemporaryDirectory", made_slowly)
    with atomic.replace_file(tmp_path / "file") as file:
        cleaner.join()
        file.write(b"all of it")
    assert os.listdir(tmp_path) == ["file"]
