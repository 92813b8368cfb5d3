"""Search the readers of feature files for anything but rows or typed errors, with atheris (``pip install atheris``).

``python tests/fuzz/fuzz_features.py CORPUS -max_total_time=900`` runs libFuzzer; without a corpus it makes seeds in a
folder of its own. An input's first byte chooses the format and the way in which it is read. What may come of any bytes
is rows of the shape that was asked for, or a DeepsimError of one line; the process may grow by twice the input and a
constant. ``tests/fuzz/test_fuzz_features.py`` replays seeds and fixed mutations without atheris.
"""

from __future__ import annotations

import io
import resource
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import runtime  # noqa: F401, E402  (makes deepsim.* importable from the checkout)

SHAPES = ((5,), (2, 3, 2))
KINDS = ("npy", "npz", "csv", "mat", "h5", "names", "block", "tree", "bounds", "statistics")
GROWTH_BYTES = 256 << 20


def check(data: bytes, folder: Path) -> None:
    """Read one input, whose first byte says how. Raises what is no typed error, and AssertionError for wrong rows."""
    from deepsim.runtime.errors import DeepsimError

    if not data:
        return
    kind, shape = KINDS[data[0] % len(KINDS)], SHAPES[data[0] // len(KINDS) % len(SHAPES)]
    try:
        _read(kind, data[1:], shape, folder)
    except DeepsimError as error:
        assert "\n" not in str(error), error


def _read(kind: str, data: bytes, shape: tuple[int, ...], folder: Path) -> None:
    from deepsim.runtime.features.rows import open_rows
    from deepsim.runtime.features.statistics import read_statistics
    from deepsim.runtime.features.units import read_bounds

    for left in folder.iterdir():
        left.unlink()
    if kind in ("bounds", "statistics"):
        path = folder / ("b.txt" if kind == "bounds" else "s.npz")
        path.write_bytes(data)
        read_bounds(path, shape) if kind == "bounds" else read_statistics([path], shape, "fc6")
        return
    names = {"names": "f.npy.names.csv", "block": "block000_thread000_code.mat", "tree": "label.mat"}
    path = folder / names.get(kind, f"f.{kind}")
    path.write_bytes(data)
    if kind == "names":
        path = folder / "f.npy"
        path.write_bytes(_npy(2, shape))
    rows = open_rows(folder if kind in ("block", "tree") else path, shape, "fc6")
    for number, row in rows.read(range(min(len(rows), 300))):
        assert isinstance(row, Exception) or (0 <= number < len(rows) and row.shape == shape), (number, row)
        assert isinstance(rows.names[number], str)


def _npy(count: int, shape: tuple[int, ...]) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.save(file, np.arange(count * int(np.prod(shape)), dtype=np.float32).reshape(count, *shape))
    return file.getvalue()


def seeds() -> list[bytes]:
    """Make valid files of every kind, each behind the byte that chooses it."""
    import numpy as np
    import scipy.io
    import scipy.sparse

    from deepsim.runtime.features.mat73 import write_mat73
    from deepsim.runtime.features.statistics import Statistics

    found = []
    with tempfile.TemporaryDirectory() as name:
        for turn, shape in enumerate(SHAPES):
            values = np.arange(3 * int(np.prod(shape)), dtype=np.float32).reshape(3, *shape)
            names = np.array(["a.jpg", "ü b.png", "c"])
            texts = "\n".join(",".join(map(str, row.ravel())) for row in values)
            files: dict[str, list[bytes]] = {kind: [] for kind in KINDS}
            for write in (np.savez, np.savez_compressed):
                file = io.BytesIO()
                write(file, features=values, names=names, index=np.arange(3))
                files["npz"].append(file.getvalue())
            file = io.BytesIO()
            scipy.sparse.save_npz(file, scipy.sparse.csr_matrix(values.reshape(3, -1)))
            files["npz"].append(file.getvalue())
            for array in (values, np.asfortranarray(values), values.astype(">f8")):
                file = io.BytesIO()
                np.save(file, array)
                files["npy"].append(file.getvalue())
            files["csv"] += [texts.encode(), texts.replace(",", ";").replace(".", ",").encode("utf-16")]
            files["csv"].append(
                "\n".join(f'"{n}",{line}' for n, line in zip(names, texts.split("\n"), strict=True)).encode()
            )
            variables = {"codes": values, "ids": np.array(list(names), object)}
            sparse = {"codes": scipy.sparse.csc_matrix(values.reshape(3, -1).astype(float))}
            for variant, content, packed in ((4, variables, False), (5, variables, True), (6, sparse, False)):
                file = io.BytesIO()
                scipy.io.savemat(file, content, do_compression=packed)
                files["mat"].append(file.getvalue())
                files["block"] += [file.getvalue()] * (variant < 6)
            path = Path(name) / "f.mat"
            write_mat73(path, "feat", values[:1])
            files["tree"].append(path.read_bytes())
            files["mat"] += [path.read_bytes(), *_hdf5(path, values)]
            files["h5"] += files["mat"][-3:]
            files["names"].append(b'index,name\n0,a.jpg\n1,"b\nc.jpg"\n')
            files["bounds"].append(b"1 2 3 4 5 " if len(shape) == 1 else b"3 4 ")
            files["statistics"].append(Statistics(values[0].astype(float), values[1].astype(float)).to_bytes())
            for place, kind in enumerate(KINDS):
                found += [bytes([place + turn * len(KINDS)]) + content for content in files[kind]]
    return found


def _hdf5(path: Path, values: object) -> list[bytes]:
    """Make files of HDF5: ours with names, and bdpy's sparse array."""
    import h5py
    import numpy as np

    from deepsim.runtime.features import Labels, write_features
    from tests.runtime.features.files_of_others import write_bdpy_sparse

    array = np.asarray(values)
    write_features(path.with_suffix(".h5"), array, Labels(("a", "b", "c"), (0, 1, 2)))
    with h5py.File(path.with_suffix(".h5"), "r+") as file:
        file.create_dataset("other", (1 << 40, 5), np.float32, chunks=(64, 5))  # claims much, holds nothing
    return [path.with_suffix(".h5").read_bytes(), write_bdpy_sparse(path, np.where(array > 4, array, 0)).read_bytes()]


def main() -> None:
    """Run libFuzzer with its own options."""
    import atheris

    parts = ("csv_file", "hdf5_file", "mat_file", "npy_file", "npz_file", "rows", "statistics", "units")
    with atheris.instrument_imports(include=["deepsim.runtime.features"], enable_loader_override=False):
        for part in parts:
            import_module(f"deepsim.runtime.features.{part}")
    folder, corpus = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    for number, seed in enumerate(seeds()):
        (corpus / f"seed{number:03d}").write_bytes(seed)
        check(seed, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def one_input(data: bytes) -> None:
        check(data, folder)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        assert grown <= GROWTH_BYTES + 2 * len(data), f"{grown:,} bytes for an input of {len(data):,}"

    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[1:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
