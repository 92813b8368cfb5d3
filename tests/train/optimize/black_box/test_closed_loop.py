"""The closed loop: what it hands out, what scores it takes, what it writes."""

import json
import re

import numpy as np
import pytest

from deepsim.runtime.errors import DataError, DeviceError, DtypeError, ShapeError, UsageError
from deepsim.runtime.images import read_image
from deepsim.runtime.inverter import Inverter
from deepsim.train.optimize.black_box import ClosedLoop, loop_folder, make_optimizer
from tests.bundles import write_kind

SMALL = {"population": 6}


def run(loop, score):
    """Run a loop to its end; return the codes of every generation."""
    seen = []
    for codes, images in loop:
        seen.append(codes)
        loop.tell(score(images))
    return seen


def test_three_lines(inverter, redness):
    loop, shapes = ClosedLoop(inverter, make_optimizer("genetic", 20, seed=3), generations=30), set()
    for codes, images in loop:
        shapes.add(codes.shape)
        loop.tell(redness(images))
    assert shapes == {(20, 20)}
    assert (images.shape, images.dtype) == ((20, 28, 28, 3), np.uint8)
    means = [line["mean"] for line in loop.log]
    assert len(means) == 30 and means[-1] > means[0] + 3 * loop.log[0]["sd"]


def test_it_decodes_what_the_optimiser_asks(inverter, redness):
    other = make_optimizer("sphere", 20, seed=1)
    for codes, images in (loop := ClosedLoop(inverter, "sphere", 3, seed=1, full=True)):
        assert (codes == other.ask()).all()
        assert (images == inverter.decode(codes, full=True)).all()
        other.tell(redness(images))
        loop.tell(redness(images))
    assert loop.generation == 3


def test_features_with_extent(tmp_path):
    from deepsim.runtime.inverter import Inverter
    from tests.bundles import write_bundle

    with Inverter(write_bundle(tmp_path, "small"), "cpu") as inverter:
        loop = ClosedLoop(inverter, "genetic", 2, tmp_path / "run", settings=SMALL)
        seen = run(loop, lambda images: images.mean(axis=(1, 2, 3)))
        assert seen[0].shape == (6, 4, 8, 8)
        assert (np.load(tmp_path / "run/codes/gen001/gen001_000007.npy") == seen[1][1]).all()
        with pytest.raises(UsageError, match=r"optimizer: codes of 20, expected 256, as the bundle takes"):
            ClosedLoop(inverter, make_optimizer("genetic", 20))


def test_the_best_code_of_all_generations(inverter, redness):
    loop, best = ClosedLoop(inverter, "cholesky", 6), []
    for codes, images in loop:
        scores = redness(images)
        best += zip(scores, loop.names, codes, strict=True)
        loop.tell(scores)
    score, name, code = max(best, key=lambda entry: entry[0])
    assert (loop.best.score, loop.best.name) == (score, name)
    assert (loop.best.code == code).all()


def test_stop_ends_after_this_generation(inverter, redness):
    loop = ClosedLoop(inverter, "genetic", settings=SMALL)
    for _, images in loop:
        loop.tell(redness(images))
        if loop.generation == 4:
            loop.stop()
    assert len(loop.log) == 4


@pytest.mark.parametrize("kept", [True, False])
def test_breaking_off_and_going_on(kept, inverter, redness, tmp_path):
    whole = run(ClosedLoop(inverter, "genetic", 4, settings=SMALL), redness)
    loop, seen = ClosedLoop(inverter, "genetic", 4, tmp_path / "run" if kept else None, settings=SMALL), []
    for codes, images in loop:
        seen.append(codes)
        loop.tell(redness(images))
        if len(seen) == 2:
            break
    seen += run(loop, redness)
    assert [(a == b).all() for a, b in zip(whole, seen, strict=True)] == [True] * 4


def test_each_generation_needs_its_scores(inverter, redness):
    loop = ClosedLoop(inverter, "genetic", settings=SMALL)
    with pytest.raises(UsageError, match="scores without a generation"):
        loop.tell(np.zeros(6))
    generations = iter(loop)
    next(generations)
    with pytest.raises(UsageError, match="expected the scores of this one first"):
        next(generations)


def test_presentations_are_averaged(inverter):
    single, repeated = (ClosedLoop(inverter, "genetic", 3, settings=SMALL) for _ in range(2))
    for (codes, images), (others, _) in zip(single, repeated, strict=True):
        assert (codes == others).all()
        scores = images.mean(axis=(1, 2, 3))
        single.tell(scores)
        repeated.tell(np.stack([scores - 1, scores + 2, scores - 1], axis=1))
    assert repeated.log[0]["scores"] == pytest.approx(single.log[0]["scores"])
    assert len(repeated.log[0]["trials"][0]) == 3 and "trials" not in single.log[0]


def test_missing_trials(inverter):
    refusing = ClosedLoop(inverter, "genetic", 1, settings=SMALL)
    allowing = ClosedLoop(inverter, "genetic", 2, settings=SMALL, missing="allow")
    trials = np.arange(12.0).reshape(6, 2)
    trials[1, 0] = trials[4] = np.nan
    for _ in refusing:
        with pytest.raises(DataError, match="scores: 3 missing, the first of gen000_000001"):
            refusing.tell(trials)
        refusing.tell(np.arange(6))  # the right scores may follow
    for codes, _ in allowing:
        before = codes
        allowing.tell(trials if allowing.generation == 0 else np.zeros(6))
    assert allowing.log[0]["scores"] == [0.5, 3.0, 4.5, 6.5, None, 10.5]
    assert allowing.log[0]["trials"][1] == [None, 3.0]
    assert (allowing.log[0]["scored"], allowing.log[0]["best"], allowing.log[0]["best_code"]) == (
        5,
        10.5,
        "gen000_000005",
    )
    assert before.shape == (6, 20)


def test_none_is_a_missing_score(inverter):
    loop = ClosedLoop(inverter, "genetic", 1, settings=SMALL, missing="allow")
    for _ in loop:
        loop.tell([1, 2, None, 4, 5, 6])
    assert loop.log[0]["scores"] == [1, 2, None, 4, 5, 6]


def test_a_generation_without_any_score(inverter):
    loop, seen = ClosedLoop(inverter, "genetic", 2, settings=SMALL, missing="allow"), []
    for codes, _ in loop:
        seen.append(codes)
        loop.tell(np.full(6, np.nan))
    assert (seen[0] == seen[1]).all()
    assert loop.best is None and loop.log[1]["mean"] is None


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (np.zeros(5), ShapeError, r"scores: shape \(5,\), expected \(6,\) or \(6, presentations\)"),
        (np.zeros((6, 0)), ShapeError, "expected"),
        (np.zeros((6, 1, 1)), ShapeError, "expected"),
        (["high"] * 6, DtypeError, "scores: not numbers"),
        ([np.inf] * 6, DataError, "infinite"),
    ],
)
def test_scores_that_cannot_be_used(inverter, scores, error, message):
    loop = ClosedLoop(inverter, "genetic", 1, settings=SMALL)
    for _ in loop:
        with pytest.raises(error, match=message):
            loop.tell(scores)
        loop.tell(np.zeros(6))
    assert loop.generation == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "ignore"}, "missing: 'ignore', expected refuse or allow"),
        ({"generations": 0}, "generations: 0"),
        ({"strip": 0}, "strip: 0"),
        ({"optimizer": "best"}, "optimizer 'best': unknown"),
    ],
)
def test_options_that_cannot_be_used(inverter, options, message):
    with pytest.raises(UsageError, match=message):
        ClosedLoop(inverter, **options)
    with pytest.raises(UsageError, match="optimizer: made already"):
        ClosedLoop(inverter, make_optimizer("genetic", 20), seed=1)


def test_what_it_writes(inverter, redness, tmp_path):
    folder, images_of, codes_of = tmp_path / "run", [], []
    loop = ClosedLoop(inverter, "genetic", 3, folder, settings=SMALL, strip=2)
    for codes, images in loop:
        images_of.append(images)
        codes_of.append(dict(zip(loop.names, codes.copy(), strict=True)))
        codes[:] = 0  # of the caller's own
        loop.tell(redness(images))
    for generation, expected in enumerate(codes_of):
        written = {path.stem: np.load(path) for path in (folder / f"codes/gen{generation:03d}").glob("*.npy")}
        assert written.keys() == expected.keys()
        assert all((written[name] == code).all() for name, code in expected.items())
    assert (loop.best.code == codes_of[int(loop.best.name[3:6])][loop.best.name]).all()
    found = {re.sub(r"gen\d+", "gen", str(path.relative_to(folder))) for path in folder.rglob("*") if path.is_file()}
    names = {re.sub(r"_\d{6}", "_", name) for name in found}
    assert names == {
        *("run.json", "state.npz", "log.jsonl", "best.png", "strips/gen.png"),
        *("codes/gen/gen_.npy", "codes/gen/genealogy_gen.npz"),
    }
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert lines == loop.log and [line["generation"] for line in lines] == [0, 1, 2]
    assert {"best", "mean", "sd", "seconds", "decode_seconds", "scores_seconds", "search_seconds"} < set(lines[0])
    for line, images in zip(lines, images_of, strict=True):
        order = np.argsort(line["scores"])[::-1][:2]
        strip = read_image(folder / f"strips/gen{line['generation']:03d}.png")
        assert (strip == np.concatenate(list(images[order]), axis=1)).all()
    assert (read_image(folder / "best.png") == inverter.decode(loop.best.code[None])[0]).all()


def test_genealogy(inverter, redness, tmp_path):
    run(ClosedLoop(inverter, "genetic", 3, tmp_path / "run", settings=SMALL), redness)
    with np.load(tmp_path / "run/codes/gen000/genealogy_gen000.npz", allow_pickle=False) as first:
        assert list(first["image_ids"]) == [f"gen000_{number:06d}" for number in range(6)]
        assert set(first["genealogy"]) == {"standard_normal"}
    with np.load(tmp_path / "run/codes/gen002/genealogy_gen002.npz", allow_pickle=False) as last:
        assert list(last["image_ids"]) == [f"gen002_{number:06d}" for number in range(12, 18)]
        assert re.fullmatch(r"gen001_0000(0[6-9]|1[01])", last["genealogy"][0])
        assert all(re.fullmatch(r"gen001_\d{6}\+gen001_\d{6}\+mut", text) for text in last["genealogy"][1:])


def test_a_folder_belongs_to_one_loop(inverter, redness, tmp_path):
    folder = tmp_path / "run"
    run(ClosedLoop(inverter, "genetic", 2, folder, settings=SMALL), redness)
    with pytest.raises(UsageError, match="holds a closed loop already"):
        run(ClosedLoop(inverter, "genetic", 2, folder, settings=SMALL), redness)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="a file, expected a folder"):
        run(ClosedLoop(inverter, "genetic", 2, tmp_path / "file", settings=SMALL), redness)
    generations = iter(ClosedLoop(inverter, "genetic", 3, folder, True, settings=SMALL))
    next(generations)
    with pytest.raises(UsageError, match="in use by process"):
        run(ClosedLoop(inverter, "genetic", 3, folder, True, settings=SMALL), redness)
    generations.close()


@pytest.mark.parametrize("writer", ["write_line", "write_codes", "write_strip", "write_state"])
def test_a_full_disk_loses_nothing(writer, inverter, redness, tmp_path, monkeypatch):
    whole = ClosedLoop(inverter, "genetic", 4, tmp_path / "whole", settings=SMALL)
    run(whole, redness)
    loop, calls = ClosedLoop(inverter, "genetic", 4, tmp_path / "run", settings=SMALL), []
    kept = getattr(loop_folder.LoopFolder, writer)

    def fail_once(self, *given):
        calls.append(given)
        if len(calls) == 3:
            raise DeviceError("log.jsonl: No space left on device.")
        return kept(self, *given)

    monkeypatch.setattr(loop_folder.LoopFolder, writer, fail_once)
    with pytest.raises(DeviceError, match="No space"):
        run(loop, redness)
    run(loop, redness)
    assert [line["scores"] for line in loop.log] == [line["scores"] for line in whole.log]
    for path in [path for path in (tmp_path / "whole").rglob("*") if path.suffix in (".npy", ".png", ".npz")]:
        assert (tmp_path / "run" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupt_while_the_optimiser_computes(kept, inverter, redness, tmp_path, monkeypatch):
    whole = run(ClosedLoop(inverter, "genetic", 4, settings=SMALL), redness)
    loop = ClosedLoop(inverter, "genetic", 4, tmp_path / "run" if kept else None, settings=SMALL)
    mutate, calls = loop.optimizer._mutate, []

    def interrupted(children):
        calls.append(children)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return mutate(children)

    monkeypatch.setattr(loop.optimizer, "_mutate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(loop, redness)
    if not kept:
        with pytest.raises(UsageError, match="interrupted while it took scores"):
            run(loop, redness)
        return
    assert [(a == b).all() for a, b in zip(whole[1:], run(loop, redness), strict=True)] == [True] * 3


def test_another_process_may_go_on_in_between(inverter, redness, tmp_path):
    whole = run(ClosedLoop(inverter, "genetic", 5, settings=SMALL), redness)
    first, seen = ClosedLoop(inverter, "genetic", 2, tmp_path / "run", settings=SMALL), []
    seen += run(first, redness)
    seen += run(ClosedLoop(inverter, "genetic", 4, tmp_path / "run", True, settings=SMALL), redness)
    first.generations = 5
    seen += run(first, redness)
    assert [(a == b).all() for a, b in zip(whole, seen, strict=True)] == [True] * 5


def test_a_bundle_without_a_generator_leaves_no_folder(tmp_path):
    pytest.importorskip("onnx")
    refused = pytest.raises(UsageError, match="has no generator, so it encodes photographs only")
    with Inverter(write_kind(tmp_path, "table-alone"), "cpu") as encoder, refused:
        ClosedLoop(encoder, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
