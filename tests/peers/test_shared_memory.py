"""Letters in shared memory: between processes, for one user alone, whole or not there, gone when the run is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flower_edge.errors import PeerError
from flower_edge.peers.packet import Packet
from flower_edge.peers.shared_folder import SharedFolder, default_root, remove_abandoned
from flower_edge.peers.shared_memory import SharedMemoryMailbox
from flower_edge.store import tree_from_bytes, tree_to_bytes

#: A node in a process of its own: posts round after round, as many bytes each time.
_NODE = """
import sys
import numpy as np
from flower_edge.peers.packet import Packet
from flower_edge.peers.shared_memory import SharedMemoryMailbox
folder, node, length, rounds = sys.argv[1], *map(int, sys.argv[2:])
payload = np.random.default_rng(node).bytes(length)
with SharedMemoryMailbox(node, folder) as mailbox:
    for round_ in range(rounds):
        mailbox.post(Packet(round_, node, 0, "identity", payload), [0])
"""

#: The same, but after the first post no file may grow beyond 1 MB: the system stops the second one half-way, with a
#: signal that ends the process there and then, or with an error.
_STOPPED = """
import resource, signal, sys
from flower_edge.errors import PeerError
from flower_edge.peers.packet import Packet
from flower_edge.peers.shared_memory import SharedMemoryMailbox
mailbox = SharedMemoryMailbox(1, sys.argv[1])
mailbox.post(Packet(0, 1, 0, "identity", b"x" * 3_000_000), [0])
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
if sys.argv[2] == "killed":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
try:
    mailbox.post(Packet(1, 1, 0, "identity", b"x" * 3_000_000), [0])
except PeerError as error:
    print(error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SharedFolder]:
    with SharedFolder(3, tmp_path) as folder:
        yield folder


def packet(sender: int = 1, round: int = 1, sequence: int = 0, payload: bytes = b"model") -> Packet:
    return Packet(round, sender, sequence, "identity", payload)


def node_process(folder: SharedFolder, node: int, length: int, rounds: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _NODE, str(folder.path), str(node), str(length), str(rounds)])


def test_two_processes_posting_at_once_are_heard_whole_by_a_third() -> None:
    with SharedFolder(3) as folder:
        nodes = [node_process(folder, node, 300_000, 20) for node in (1, 2)]
        expected = {node: np.random.default_rng(node).bytes(300_000) for node in (1, 2)}
        with SharedMemoryMailbox(0, folder.path) as mailbox:
            end_s = time.monotonic() + 60
            while any(node.poll() is None for node in nodes) and time.monotonic() < end_s:
                for round_ in (5, 19):
                    for sender, letter in mailbox.collect(round_, [1, 2]).items():
                        assert letter.packet.payload == expected[sender]
                        assert letter.link_s is not None
            assert [node.wait(timeout=60) for node in nodes] == [0, 0]
            for round_ in range(20):
                letters = mailbox.collect(round_, [1, 2])
                assert {sender: letter.packet.payload for sender, letter in letters.items()} == expected
            assert mailbox.refused == 0


def stopped_in_mid_post(folder: SharedFolder, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _STOPPED, str(folder.path), how]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_node_killed_in_the_middle_of_a_post_leaves_no_torn_letter(folder: SharedFolder) -> None:
    assert stopped_in_mid_post(folder, "killed").returncode == -signal.SIGXFSZ
    (unfinished,) = folder.path.rglob(".unfinished-*")
    assert unfinished.stat().st_size == 1_000_000
    mailbox = SharedMemoryMailbox(0, folder.path)
    assert [list(mailbox.collect(round_, [1])) for round_ in (0, 1)] == [[1], []]
    assert mailbox.refused == 0
    SharedMemoryMailbox(1, folder.path).forget(2)
    assert [path.name for path in folder.path.iterdir()] == ["alive"]


def test_a_post_for_which_there_is_no_room_says_so_and_leaves_nothing(folder: SharedFolder) -> None:
    done = stopped_in_mid_post(folder, "told")
    assert done.returncode == 0
    assert "cannot be written (File too large); make room there" in done.stdout
    assert list(folder.path.rglob(".unfinished-*")) == []
    assert SharedMemoryMailbox(0, folder.path).collect(1, [1]) == {}


def test_a_node_killed_at_any_moment_leaves_no_torn_letter() -> None:
    expected = np.random.default_rng(1).bytes(2_000_000)
    with SharedFolder(3) as folder:
        node = node_process(folder, 1, 2_000_000, 300)
        end_s = time.monotonic() + 60
        while not (folder.path / "2/1/0").exists() and time.monotonic() < end_s:
            time.sleep(0.001)
        node.kill()
        node.wait(timeout=60)
        with SharedMemoryMailbox(0, folder.path) as mailbox:
            letters = [mailbox.collect(round_, [1]).get(1) for round_ in range(300)]
            assert all(letter.packet.payload == expected for letter in letters if letter is not None)
            assert [letter is None for letter in letters[:3]] == [False] * 3
            assert mailbox.refused == 0


def test_a_post_leaves_nothing_unfinished_and_nothing_for_others_to_see(folder: SharedFolder) -> None:
    with SharedMemoryMailbox(1, folder.path) as mailbox:
        mailbox.post(packet(), [0])
    modes = {path.relative_to(folder.path).as_posix(): path.stat().st_mode & 0o777 for path in folder.path.rglob("*")}
    assert modes == {"alive": 0o600, "1": 0o700, "1/1": 0o700, "1/1/0": 0o600}
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_it_lives_in_memory_where_the_system_has_such_a_folder() -> None:
    assert default_root() == (Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else default_root())
    with SharedFolder(3) as folder:
        assert folder.path.parent == default_root()


def test_two_folders_of_one_run_do_not_meet(tmp_path: Path) -> None:
    with SharedFolder(3, tmp_path) as one, SharedFolder(3, tmp_path) as other:
        SharedMemoryMailbox(1, one.path).post(packet(), [0])
        assert SharedMemoryMailbox(0, other.path).collect(1, [1]) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_letter_is_refused(folder: SharedFolder, tmp_path: Path) -> None:
    with SharedMemoryMailbox(1, folder.path) as mailbox:
        mailbox.post(packet(), [0])
    letter = folder.path / "1/1/0"
    letter.rename(tmp_path / "elsewhere")
    letter.symlink_to(tmp_path / "elsewhere")
    reader = SharedMemoryMailbox(0, folder.path)
    assert reader.collect(1, [1]) == {}
    assert reader.refused == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are not known here")
def test_a_pipe_in_the_place_of_a_letter_is_refused_and_not_waited_for(folder: SharedFolder) -> None:
    box = folder.path / "1" / "0"
    box.mkdir(parents=True)
    os.mkfifo(box / "0")
    mailbox = SharedMemoryMailbox(1, folder.path)
    assert mailbox.collect(1, [0]) == {}
    assert mailbox.refused == 1


@pytest.mark.parametrize("place", [0, 5, 9, 13, 20])
def test_an_envelope_that_was_altered_is_refused(folder: SharedFolder, place: int) -> None:
    with SharedMemoryMailbox(1, folder.path) as mailbox:
        mailbox.post(packet(), [0], processing_s=1.0)
    letter = folder.path / "1/1/0"
    data = bytearray(letter.read_bytes())
    data[place] ^= 0x40
    letter.write_bytes(data)
    reader = SharedMemoryMailbox(0, folder.path)
    assert (reader.collect(1, [1]), reader.refused) == ({}, 1)


def test_behind_a_damaged_letter_the_one_before_it_counts(folder: SharedFolder) -> None:
    with SharedMemoryMailbox(1, folder.path) as mailbox:
        for sequence in (0, 1):
            mailbox.post(packet(sequence=sequence), [0])
    (folder.path / "1/1/1").write_bytes(b"junk")
    reader = SharedMemoryMailbox(0, folder.path)
    assert reader.collect(1, [1])[1].packet.sequence == 0
    assert reader.refused == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "expected what SharedFolder.config"),
        ("/etc", "expected what SharedFolder.config"),
        ("flower-edge-" + "0" * 16 + "-" + "0" * 32, "expected what SharedFolder.config"),
        ("/nowhere/flower-edge-" + "0" * 16 + "-" + "0" * 32, "is not on this host.*choose the mailbox 'relay'"),
    ],
)
def test_a_folder_that_is_not_ours_or_not_here_is_refused(name: str, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        SharedMemoryMailbox(0, name)


def test_a_folder_that_others_may_look_into_is_refused(folder: SharedFolder) -> None:
    folder.path.chmod(0o755)
    with pytest.raises(PeerError, match="chmod 700"):
        SharedMemoryMailbox(0, folder.path)


def test_a_link_to_a_folder_is_refused(folder: SharedFolder, tmp_path: Path) -> None:
    link = tmp_path / ("flower-edge-" + "0" * 16 + "-" + "0" * 32)
    link.symlink_to(folder.path)
    with pytest.raises(PeerError, match="belongs to somebody else"):
        SharedMemoryMailbox(0, link)


def test_posting_when_the_run_has_ended_says_so(tmp_path: Path) -> None:
    folder = SharedFolder(3, tmp_path)
    mailbox = SharedMemoryMailbox(1, folder.path)
    folder.remove()
    folder.remove()
    assert mailbox.collect(1, [2]) == {}
    mailbox.forget(5)
    with pytest.raises(PeerError, match="is gone: the run has ended"):
        mailbox.post(packet(), [0])
    assert not folder.path.exists()


def test_no_folder_can_be_made_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"no mailbox folder can be made in .*missing"):
        SharedFolder(3, tmp_path / "missing")


def test_a_server_that_was_killed_leaves_a_folder_that_the_next_one_removes(tmp_path: Path) -> None:
    code = (
        "import os, sys; from flower_edge.peers.shared_folder import SharedFolder\n"
        "f = SharedFolder(9, sys.argv[1]); print(f.path, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    with SharedFolder(3, tmp_path):
        assert left.is_dir(), "it may have been left a moment ago, by a server whose nodes are still reading"
    old_s = time.time() - 7200
    os.utime(left, (old_s, old_s))
    with SharedFolder(3, tmp_path) as alive:
        assert not left.exists()
        os.utime(alive.path, (old_s, old_s))
        assert remove_abandoned(tmp_path, 0.0) == 0, "its server lives"
        assert alive.path.is_dir()


def test_the_folder_is_removed_when_its_process_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from flower_edge.peers.shared_folder import SharedFolder\n"
        "f = SharedFolder(9, sys.argv[1]); print(f.path); raise SystemExit(3)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "flower-edge-" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_folder_goes_through_a_checkpoint(tmp_path: Path) -> None:
    with SharedFolder(3, tmp_path) as folder:
        SharedMemoryMailbox(1, folder.path).post(packet(round=4), [0], processing_s=0.5)
        saved = tree_to_bytes(folder.state_dict())
    with SharedFolder(3, tmp_path) as folder:
        SharedMemoryMailbox(1, folder.path).post(packet(round=5), [0])
        folder.load_state_dict(tree_from_bytes(saved))
        mailbox = SharedMemoryMailbox(0, folder.path)
        assert mailbox.collect(4, [1])[1].packet == packet(round=4)
        assert mailbox.collect(4, [1])[1].processing_s == 0.5
        assert mailbox.collect(5, [1]) == {}
        with pytest.raises(PeerError, match="expected '<round>/<sender>/<sequence>'"):
            folder.load_state_dict({"letters": {"1/../../x": b""}})


def test_forgetting_leaves_the_letters_of_others(folder: SharedFolder) -> None:
    for sender in (1, 2):
        SharedMemoryMailbox(sender, folder.path).post(packet(sender), [0])
    SharedMemoryMailbox(1, folder.path).forget(2)
    assert list(SharedMemoryMailbox(0, folder.path).collect(1, [1, 2])) == [2]
    folder.forget(2)
    assert SharedMemoryMailbox(0, folder.path).collect(1, [1, 2]) == {}
