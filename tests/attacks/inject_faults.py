"""Let one system call of a command fail, for many calls and errors, and look at what is left.

``LD_PRELOAD=faults.so inject_faults.py WORK CASES SECONDS COMMAND...`` prints as JSON how many cases ran and which went
wrong, after CASES cases or SECONDS, whichever is first. One process imports everything once and forks one per case.
"""

import ctypes
import errno
import hashlib
import itertools
import json
import os
import random
import shutil
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import runtime  # noqa: F401  (makes deepsim.* importable from the checkout)
from deepsim.runtime.cli import LazyGroup, main
from deepsim.runtime.cli.exits import run
from tests.bundles import photographs, write_bundle

KINDS = ("open", "read", "write", "fsync", "rename", "mkdir", "unlink", "lock", "chmod", "link")
ERRORS = (
    *("EIO", "ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS", "EMFILE", "ENFILE", "ENAMETOOLONG", "ELOOP", "ENOTDIR"),
    *("EISDIR", "ENOTEMPTY", "EXDEV", "ESTALE", "EBUSY", "ETXTBSY", "EFBIG", "EINTR", "ENOMEM", "ENOSYS", "EINVAL"),
    *("EOPNOTSUPP", "ENOENT"),
)
TINY = "--preset tiny --width 0.015625 --steps 2 --checkpoint-every 1 --log-every 1 --image-every 1 --validate-every 1"
COMMANDS = {
    "encode": "encode tiny.deepsim photos -o out/features.npy --overwrite",
    **{
        f"encode-{kind}": f"encode tiny.deepsim photos -o out/features.{kind} --overwrite"
        for kind in ("npz", "h5", "mat", "csv")
    },
    "decode": "decode tiny.deepsim features.npy -o out/decoded --overwrite",
    "reconstruct": "reconstruct tiny.deepsim photos -o out/images --overwrite",
    "reencode": "reencode tiny.deepsim photos -o out/strips --overwrite",
    "interpolate": "interpolate tiny.deepsim photos/0.png photos/1.png -o out/between.png --overwrite",
    "report": "report tiny.deepsim --photos photos -o out/report.html --overwrite --seconds 0",
    "train": f"train {TINY} --data photos -o out/run --quiet --threads 1 --deterministic",
    "resume": "train --data photos -o run --resume auto --steps 3 --quiet --threads 1",
    "export": "export run --engine onnx -o out/new.deepsim --overwrite",
}
TIME_LIMIT = 120  # seconds for one case, which takes one or two
LEFT = (".staging-", ".old-", ".lock")
KEPT = ".partial"  # rows to go on with
FAULTS = ctypes.CDLL(None)


def prepare(work, commands):
    """Write what the commands read, and old outputs; import what they import."""
    from deepsim.runtime.images import save_png

    template = work / "template"
    write_bundle(template)
    for index, photo in enumerate(photographs(2)):
        save_png(photo, template / f"photos/{index}.png")
    for name in commands:
        LazyGroup.get_command(main, None, COMMANDS[name].split()[0])
    for kind, module in (("h5", "h5py"), ("mat", "scipy.io")):
        if f"encode-{kind}" in commands:
            import_module(module)
    if {"train", "resume", "export"} & set(commands):
        import onnx  # noqa: F401
        import torch

        from deepsim.export import bundle, sources  # noqa: F401
        from deepsim.train import loop  # noqa: F401

        torch.set_num_threads(1)
    first = ["encode", *(["train"] if "resume" in commands or "export" in commands else [])]
    for name in first:
        require(start(template, COMMANDS[name]), template)
    (template / "out/features.npy").rename(template / "features.npy")
    if len(first) > 1:
        (template / "out/run").rename(template / "run")
        for path in (template / "run/tensorboard").iterdir():
            path.unlink()
    shutil.rmtree(template / "out")
    return template


def require(pid, folder):
    if (code := wait(pid)) != 0:
        sys.exit(f"without any fault: exit code {code}\n{(folder / 'stderr').read_text()}")


def start(folder, command, kind=-1, number=0, nth=0):
    """Run a command in a forked process, with a fault; what it prints goes to ``folder``."""
    child = os.fork()
    if child:
        return child
    try:
        os.chdir(folder)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        FAULTS.faults_arm(os.fsencode(folder), kind, number, nth)
        code = 0
        try:
            run(main, "deepsim", command.split())
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc()
            code = 1
        counts = [FAULTS.faults_count(index) for index in range(len(KINDS))]
        FAULTS.faults_arm(b"", -1, 0, 0)
        Path("counts").write_text(json.dumps(counts))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    finally:
        os._exit(99)


def wait(pid):
    end = time.monotonic() + TIME_LIMIT
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hung"


def digests(folder):
    """Map what a command wrote to its content; of what holds times or the last step only that it is there counts."""
    found = {}
    for path in sorted((folder / "out").rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part in name for part in (*LEFT, KEPT)):
            varies = path.suffix in (".html", ".jsonl", ".md", ".json", ".mat") or path.name in ("latest", "best")
            found[name] = "" if varies else hashlib.sha256(path.read_bytes()).hexdigest()
    return {name: digest for name, digest in found.items() if "tfevents" not in name}


def case_folder(work, template, reference):
    """Build a folder with the inputs, and with the outputs of an earlier run."""
    folder = work / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    if reference is not None:
        shutil.copytree(reference / "out", folder / "out")
    return folder


def wrongs_of_the_next(folder, name, wanted):
    """Run a command again, without a fault: list what is wrong with what it writes, or leaves of the run before."""
    code = wait(start(folder, COMMANDS[name]))
    found = [] if code == 0 and digests(folder) == wanted else [f"again: {code}, {(folder / 'stderr').read_text()}"]
    left = [path.name for path in folder.rglob("*") if any(part in path.name for part in (*LEFT, KEPT))]
    return found + [f"left behind even so: {left}"] * bool(left)


def wrongs(folder, code, wanted, overwrites, kind):
    """List what is wrong with how a command ended and what it left."""
    errors = (folder / "stderr").read_text().splitlines()
    found = []
    if code not in (0, 2, 3, 4):
        found.append(f"exit code {code}: {errors[-3:]}")
    if any("Traceback" in line or "Exception ignored" in line for line in errors):
        found.append(f"traceback: {errors[-3:]}")
    if code in (2, 3, 4) and sum(line.startswith("Error: ") for line in errors) != 1:
        found.append(f"not one line: {errors}")
    left = [path.name for path in folder.rglob("*") if any(part in path.name for part in LEFT)]
    if left and kind not in ("open", "unlink"):  # removing them opens and unlinks
        found.append(f"left behind: {left}")
    written = digests(folder)
    if code == 0 and written != wanted:
        found.append(f"exit code 0, but wrong: {sorted(set(written.items()) ^ set(wanted.items()))[:3]}")
    if overwrites and written != wanted:
        found.append(f"old output lost: {sorted(set(written.items()) ^ set(wanted.items()))[:3]}")
    if any(wanted.get(name) != digest for name, digest in written.items()):
        found.append(f"torn: {[name for name, digest in written.items() if wanted.get(name) != digest][:3]}")
    return found


def cases(template, work, commands, rng):
    """Yield every call of every command with errors in random order, the commands in turn."""
    todo = []
    for name in commands:
        folder = case_folder(work, template, None)
        require(start(folder, COMMANDS[name]), folder)
        reference = work / f"reference-{name}"
        shutil.copytree(folder, reference)
        counts = json.loads((folder / "counts").read_text())
        calls = [(kind, nth) for kind, count in enumerate(counts) for nth in range(1, count + 1)]
        rng.shuffle(calls)
        todo.append(
            [(name, reference, kind, nth, rng.choice(ERRORS)) for _ in range(len(ERRORS)) for kind, nth in calls]
        )
    for group in itertools.zip_longest(*todo):
        yield from (case for case in group if case is not None)


def attack(work, limit, seconds, commands):
    rng = random.Random(0)
    template = prepare(work, commands)
    began, ran, found, codes = time.monotonic(), 0, [], {}
    for name, reference, kind, nth, error in cases(template, work, commands, rng):
        if ran >= limit or time.monotonic() - began > seconds:
            break
        overwrites = "--overwrite" in COMMANDS[name]
        folder = case_folder(work, template, reference if overwrites else None)
        code = wait(start(folder, COMMANDS[name], kind, getattr(errno, error), nth))
        ran += 1
        codes[str(code)] = codes.get(str(code), 0) + 1
        wanted = digests(reference)
        found_here = wrongs(folder, code, wanted, overwrites, KINDS[kind])
        if overwrites:
            found_here += wrongs_of_the_next(folder, name, wanted)
        for wrong in found_here:
            found.append(f"{name}: {KINDS[kind]} {nth} {error}: {wrong}")
    print(json.dumps({"ran": ran, "codes": codes, "wrong": found}, indent=1))


if __name__ == "__main__":
    attack(Path(sys.argv[1]).resolve(), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:] or list(COMMANDS))
