"""A file is written whole or not at all, to whatever takes bytes."""

import io
import os
import resource
import threading

import pytest
from dcc_files import make

from decodec_jax.errors import UserError
from decodec_jax.inference import container
from decodec_jax.inference.container import Writer


def test_a_named_pipe(tmp_path):
    """A path that is no file is written to, not replaced."""
    tokens, path = make(100_000), tmp_path / "pipe"
    os.mkfifo(path)
    writing = threading.Thread(target=container.write, args=(path, tokens))
    writing.start()
    assert container.read(path) == tokens
    writing.join()
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"] and path.is_fifo()


class FullDisk(io.RawIOBase):
    """Takes `room` bytes, the last of them only in part, as raw files do."""

    def __init__(self, room: int):
        self.room, self.taken = room, b""

    def writable(self):
        return True

    def write(self, data):
        if self.room == len(self.taken):
            raise OSError(28, "No space left on device")
        piece = bytes(data)[: self.room - len(self.taken)]
        self.taken += piece
        return len(piece)


@pytest.mark.parametrize("room", [0, 20, 52, 1000, 3127])
def test_a_full_disk_is_one_line_and_what_it_took_reads_as_truncated(room):
    file = FullDisk(room)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        container.write(file, make(48_000))
    assert len(file.taken) == room
    with pytest.raises(UserError, match=r"empty|truncated|not a \.dcc"):
        container.read(io.BytesIO(file.taken))


@pytest.mark.parametrize("before", [None, b"the old file"])
def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new(tmp_path, before):
    if before:
        (tmp_path / "a.dcc").write_bytes(before)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(UserError, match=r"a\.dcc cannot be written \(File too large\)"):
            container.write(tmp_path / "a.dcc", make(16_000 * 60))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({"a.dcc": before} if before else {})


def test_whatever_interrupts_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "a.dcc") as writer:
        writer.write(make())
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="there are no tokens to write"), Writer(tmp_path / "a.dcc"):
        pass
    with pytest.raises(UserError, match="16000 samples came, not 5"), Writer(tmp_path / "a.dcc", length=5) as writer:
        writer.write(make())
    with pytest.raises(UserError, match="within a frame"), Writer(tmp_path / "a.dcc") as writer:
        writer.write(make(319))
        writer.write(make(320))
    with pytest.raises(UserError, match="cannot follow"), Writer(tmp_path / "a.dcc") as writer:
        writer.write(make(320))
        writer.write(make(320, levels=(8, 7)))
    with pytest.raises(UserError, match="and gain must be the same"), Writer(tmp_path / "a.dcc") as writer:
        writer.write(make(320))
        writer.write(make(320, gain=3.7))
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_when_complete_and_then_is_closed(tmp_path):
    writer = Writer(tmp_path / "a.dcc")
    writer.write(make())
    assert not (tmp_path / "a.dcc").exists()
    writer.close()
    writer.close()
    writer.abort()
    assert container.read(tmp_path / "a.dcc") == make()
    with pytest.raises(UserError, match="the writer is closed"):
        writer.write(make())


def test_what_cannot_be_written(tmp_path):
    for path, words in [(tmp_path / "none" / "a.dcc", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(UserError, match=f"cannot be written .{words}"):
            container.write(path, make())
    for seconds, words in [(0, "must be above 0"), (float("nan"), "must be above 0"), (5000, "the limit is 1048576")]:
        with pytest.raises(UserError, match=words):
            container.write(tmp_path / "a.dcc", make(), block_seconds=seconds)
    with pytest.raises(UserError, match="levels are"):
        container.write(tmp_path / "a.dcc", make(320, (256, 1)))
    assert list(tmp_path.iterdir()) == []
