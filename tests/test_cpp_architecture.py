"""The shape of the C++ half: functions and files stay as small as Python's, and the tests keep up with the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("runtime/native", "kernels", "tests/native", "examples")
PRODUCT = ("runtime", "kernels")
FILES = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".c", ".cpp", ".cu", ".h") and "third_party" not in path.parts
]
SCOPE = re.compile(r"(^|\s)(namespace|class|struct|union|enum|extern)\b")
ACCESS = re.compile(r"\b(public|private|protected)\s*$")
NO_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|R"\(.*?\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)


def name_of(path):
    return str(path.relative_to(ROOT))


def code_of(text):
    """Return C++ without comments, literals and the preprocessor's lines; every line stays where it is."""
    for unwanted in (NO_CODE, DIRECTIVE):
        text = unwanted.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)
    return text


def end_of(code, at):
    """Return the place of the brace that closes the one at a place."""
    depth = 0
    for place in range(at, len(code)):
        depth += {"{": 1, "}": -1}.get(code[place], 0)
        if depth == 0:
            return place
    raise ValueError("a brace without its other half")


def body_end(code, at):
    """Return where the function whose body, or whose first initialised member, begins at a brace has its last one."""
    end = end_of(code, at)
    while following := re.match(r"\s*[,{]", code[end + 1 :]):
        end = end_of(code, code.index("{", end + following.end()))
    return end


def functions(text):
    """Yield name and number of lines of every function that has a body, the lambdas in it included."""
    code, begin, at = code_of(text), 0, 0
    while at < len(code):
        head = code[begin:at]
        opens_scope = code[at] == "{" and "(" not in head and SCOPE.search(head)
        if code[at] in ";}" or opens_scope or (code[at] == ":" and ACCESS.search(head)):
            begin = at + 1
        elif code[at] == "{":
            is_function = "(" in head and not head.rstrip().endswith("=")
            at = body_end(code, at) if is_function else end_of(code, at)
            if is_function:
                first = begin + len(head) - len(head.lstrip())
                yield head.split("(")[0].split()[-1], code[first:at].count("\n") + 1
            begin = at + 1
        at += 1


SAMPLE = """
#define OPEN {
namespace a { // {
struct B : C {
  B(int x) : x_{x}, y_(1) {
    run([&] { return "}"; });
  }
  int x() const { return x_; }
 private:
  int x_{3}, y_[2] = {1, 2};
};
const char kBrace = '{';
template <class T>
T
later(T value) {
  if (value) { return {}; }
  return value;
}
}
"""


def test_the_scanner_sees_every_function():
    assert list(functions(SAMPLE)) == [("B", 3), ("x", 1), ("later", 6)]


def test_functions_are_short():
    product = [path for path in FILES if path.relative_to(ROOT).parts[0] in PRODUCT]
    lengths = [(length, f"{name_of(path)}:{name}") for path in product for name, length in functions(path.read_text())]
    lengths.sort()
    assert len(lengths) > 800
    assert lengths[-1][0] <= 80, lengths[-1]
    assert lengths[int(0.95 * len(lengths))][0] <= 40
    assert lengths[len(lengths) // 2][0] <= 10


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


def lines_of_code(paths):
    """Count the lines that are neither blank nor all comment, of C++ and of Python."""
    comment = re.compile(r"\s*(//|#(?!\s*(include|define|if|el|end|pragma|error|undef)))")
    return sum(
        bool(line.strip()) and not comment.match(line) for path in paths for line in path.read_text().splitlines()
    )


def test_the_tests_of_the_native_library_keep_up_with_it():
    code = [path for path in FILES if re.match(r"runtime/native/src/(?!cuda/)|kernels/cpu/", name_of(path))]
    tests = [path for path in FILES if re.match(r"tests/native/(?!cuda/|older/deepsim\.h)", name_of(path))]
    assert lines_of_code(tests) >= 0.6 * lines_of_code(code)
