"""Which checkpoints are kept: the last three up to the one just saved, the best, and whatever is later."""

import shutil

import pytest

pytest.importorskip("torch")

from deepsim.runtime.files import ASIDE
from deepsim.runtime.processes import stamp
from deepsim.runtime.run_folder import STATE, checkpoint_folder
from deepsim.train.checkpoints import _remove_old, mark_best, newest_checkpoints


@pytest.mark.parametrize(
    ("present", "best", "saved", "kept"),
    [
        ((1, 2, 3, 4), None, 4, {2, 3, 4}),
        ((1, 2, 3, 4, 5), 1, 5, {1, 3, 4, 5}),
        ((6, 7, 9, 10, 11), None, 7, {6, 7, 9, 10, 11}),  # 9 to 11 turned out damaged, the run went on from 6
        ((3, 4, 5, 6, 9), None, 6, {4, 5, 6, 9}),
    ],
)
def test_kept(tmp_path, present, best, saved, kept):
    for step in present:
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
    if best is not None:
        mark_best(checkpoint_folder(tmp_path, best))
    _remove_old(checkpoint_folder(tmp_path, saved))
    left = {int(path.name.removeprefix("step-")) for path in (tmp_path / "checkpoints").glob("step-*")}
    assert left == kept


def test_a_checkpoint_moved_aside_by_a_killed_process_is_found(tmp_path):
    checkpoint = checkpoint_folder(tmp_path, 7)
    aside = checkpoint.with_name(stamp(checkpoint.name, ASIDE))
    aside.mkdir(parents=True)
    (aside / STATE).touch()
    assert newest_checkpoints(tmp_path) == [checkpoint] and not aside.exists()


def test_an_old_checkpoint_is_gone_before_its_first_file_is(tmp_path, monkeypatch):
    for step in range(1, 5):
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
        (checkpoint_folder(tmp_path, step) / STATE).touch()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        _remove_old(checkpoint_folder(tmp_path, 4))
    assert newest_checkpoints(tmp_path) == [checkpoint_folder(tmp_path, step) for step in (4, 3, 2)]
