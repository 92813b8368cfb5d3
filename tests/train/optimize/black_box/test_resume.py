"""A closed loop that ends anywhere, also by SIGKILL between two writes, goes on with the very codes that follow."""

import json
import os
import signal

import numpy as np
import pytest

from deepsim.runtime import files
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.inverter import Inverter
from deepsim.train.optimize.black_box import PRESETS, ClosedLoop, loop_folder

GENERATIONS = 3


def search(inverter, folder, score, name="genetic", generations=GENERATIONS, resume=True, population=6, **options):
    settings = {} if name == "cholesky" else {"population": population}
    settings |= {"select": 3} if name.startswith("sphere") else {}
    settings |= {"conserve": 2} if name == "genetic-actmax" else {}
    loop = ClosedLoop(inverter, name, generations, folder, resume, settings=settings, strip=2, **options)
    for _, images in loop:
        loop.tell(score(images))
    return loop


def contents(folder):
    """Map the files of a folder to what they hold, without the seconds of the log."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found[name] = {key: arrays[key].tolist() for key in arrays.files}
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_a_finished_search_goes_on_when_more_generations_are_asked_for(name, inverter, redness, tmp_path):
    whole = search(inverter, tmp_path / "whole", redness, name, 4)
    search(inverter, tmp_path / "parts", redness, name, 2)
    parts = search(inverter, tmp_path / "parts", redness, name, 4)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert len(parts.log) == 4 and parts.best.name == whole.best.name
    again = search(inverter, tmp_path / "parts", redness, name, 4)  # nothing is left to do
    assert again.generation == 4 and contents(tmp_path / "parts") == contents(tmp_path / "whole")


def kill_at(number, bundle, folder, score, **options):
    """Run the search in a child that kills itself before its write of this number; return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            count = iter(range(10_000))

            def deadly(function):
                def write(*arguments, **options):
                    if next(count) == number:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*arguments, **options)

                return write

            for name in ("_rename_file", "_rename_folder", "_create_locked"):
                setattr(files, name, deadly(getattr(files, name)))
            np.save = deadly(np.save)
            os.fsync = deadly(os.fsync)  # after the line of the log was written, before it counts as kept
            with Inverter(bundle, "cpu") as inverter:
                search(inverter, folder, score, **options)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_killed_before_any_write(bundle, inverter, redness, tmp_path):
    few = {"generations": 2, "population": 3}
    search(inverter, tmp_path / "whole", redness, **few)
    expected = contents(tmp_path / "whole")
    kills = 0
    while kill_at(kills, bundle, folder := tmp_path / f"killed-{kills}", redness, **few):
        search(inverter, folder, redness, **few)
        assert contents(folder) == expected, f"killed before write {kills}"
        kills += 1
    assert kills > 40  # codes, genealogy, line, strip and state of 2 generations, each written, synced, renamed


def test_killed_again_and_again(bundle, inverter, redness, tmp_path):
    search(inverter, tmp_path / "whole", redness)
    kills = 0
    while kill_at(25, bundle, tmp_path / "killed", redness):
        kills += 1
        assert kills < 20
    assert kills >= 2
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not list(tmp_path.rglob(".*staging*"))


def test_a_line_of_which_a_part_was_written_is_removed(inverter, redness, tmp_path):
    folder = tmp_path / "run"
    search(inverter, folder, redness, generations=2)
    expected = contents(folder)
    with (folder / "log.jsonl").open("ab") as file:
        file.write(b'{"generation": 2, "codes": 6, "sco')
    search(inverter, folder, redness, generations=2)
    assert contents(folder) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0, expected 1"),
        ({"name": "sphere"}, "optimizer is 'Genetic', expected 'Sphere'"),
        ({"start": "zeros"}, "start is 'normal', expected 'zeros'"),
        ({"start": np.ones((6, 20))}, "start is 'normal', expected 'given codes"),
        ({"full": True}, "whole_images is False, expected True"),
    ],
)
def test_another_search_is_not_gone_on_with(inverter, redness, tmp_path, change, message):
    search(inverter, tmp_path / "run", redness, generations=1)
    with pytest.raises(UsageError, match=message):
        search(inverter, tmp_path / "run", redness, **change)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.npz", b"PK", "state.npz: unreadable"),
        ("state.npz", b"", "state.npz: unreadable"),
        ("run.json", b"{", "run.json: unreadable"),
        ("run.json", b"[]", "run.json: unreadable"),
        ("log.jsonl", b"", "log.jsonl: damaged, expected a line for each of 1 generations"),
        ("log.jsonl", b'{"generation": "0"}\n[]\n\xff\n', "log.jsonl: damaged"),
    ],
)
def test_damaged_files(inverter, redness, tmp_path, name, content, message):
    search(inverter, tmp_path / "run", redness, generations=1)
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        search(inverter, tmp_path / "run", redness)


def test_a_state_is_never_unpickled(inverter, redness, tmp_path):
    search(inverter, tmp_path / "run", redness, generations=1)
    np.savez(tmp_path / "run/state.npz", numbers=np.array([{}], object))
    with pytest.raises(CheckpointError, match=r"state.npz: unreadable \(Object arrays cannot be loaded"):
        search(inverter, tmp_path / "run", redness)
    np.savez(tmp_path / "run/state.npz", numbers=np.zeros(2))
    with pytest.raises(CheckpointError, match="state: not that of a closed loop"):
        search(inverter, tmp_path / "run", redness)


def test_a_state_without_the_optimisers_arrays(inverter, redness, tmp_path):
    search(inverter, tmp_path / "run", redness, generations=1)
    loop_folder.LoopFolder(tmp_path / "run").write_state({"numbers": np.array([1, 6, 0])})
    with pytest.raises(CheckpointError, match="state: not that of such an optimiser"):
        search(inverter, tmp_path / "run", redness)
