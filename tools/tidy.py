#!/usr/bin/env python3
"""Checks the layout rules that a compiler does not know.

  tools/tidy.py            prints each breach; exit status 1 if there is one
  tools/tidy.py --accept   records today's breaches as known, so that they may shrink but not grow

Rules: an #include stays inside the modules its module may use (CMakeLists.txt); a line has at most
100 columns; headers, sources, tests and functions have a limit of lines; no path of one machine.
Known breaches stand in tools/tidy-known.txt, one per line: rule, place, size.
"""

import argparse
import ast
import re
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

MAX_COLUMNS = 100
MAX_LINES = {"header": 300, "source": 1000, "test": 800}
MAX_FUNCTION_LINES = 70
FOLDERS = ("src", "include", "tests", "bench", "tools", "cmake", "docs", "changes")
CPP = (".h", ".cc", ".c")
CODE = CPP + (".py", ".sh", ".cmake")
TEXT = CODE + (".md", ".txt", ".json")
MACHINE_PATH = re.compile(r"(?<![\w.-])/(?:work|farm|root)/|/tmp/(?:build|design|fresh)\b")
FUNCTION_NAME = re.compile(r"TEST\w*\([^)]*\)|[~\w:]+(?=\s*\()|operator\s*\S+(?=\s*\()")
KNOWN = "tools/tidy-known.txt"


class Breach(NamedTuple):
    rule: str
    place: str  # path, or path:function
    size: int
    limit: int

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}: {self.size}, at most {self.limit}"


def module_uses(cmake: str) -> dict[str, set[str]]:
    """For each module, itself and all modules it may use, from the caw_module() calls."""
    uses: dict[str, set[str]] = {}
    for call in re.findall(r"^caw_module\(([^)]*)\)", cmake, re.M):
        words = call.split()
        deps = []
        if "DEPS" in words:
            deps = words[words.index("DEPS") + 1 :]
            deps = deps[: deps.index("LIBS")] if "LIBS" in deps else deps
        uses[words[0]] = {words[0]}.union(*(uses[dep] for dep in deps))
    return uses


def includes_upward(path: str, text: str, uses: dict[str, set[str]]) -> list[str]:
    parts = path.split("/")
    if parts[0] != "src" or parts[1] not in uses:
        return []
    allowed = uses[parts[1]]
    if path.endswith("_test.cc"):
        allowed = allowed | {"support"}
    found = re.findall(r'^#include "([^"]+)"', text, re.M)
    return [name for name in found if "/" in name and not inside(name, allowed)]


def inside(include: str, allowed: set[str]) -> bool:
    module = include.split("/")[0]
    return module in allowed or module == "caw"  # include/caw/ is open to all


def blank(match: re.Match) -> str:
    """Spaces instead of the match, its line ends kept."""
    return re.sub(r"[^\n]", " ", match.group())


def strip_cpp(text: str) -> str:
    """Comments, literals and preprocessor lines blanked out."""
    literals = (
        r'R"(\w*)\([\s\S]*?\)\1"'
        r"|//[^\n]*|/\*[\s\S]*?\*/"
        r'|"(?:\\.|[^"\\\n])*"'
        r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'"
    )
    text = re.sub(literals, blank, text)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.M)


def matching_braces(code: str) -> dict[int, int]:
    pairs: dict[int, int] = {}
    open_at: list[int] = []
    for at, char in enumerate(code):
        if char == "{":
            open_at.append(at)
        elif char == "}" and open_at:
            pairs[open_at.pop()] = at
    return pairs


def cpp_functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and line count of each function body at namespace or class scope, about."""
    code = strip_cpp(text)
    pairs = matching_braces(code)
    head_from = at = 0
    while at < len(code):
        char = code[at]
        if char in ";}" or (char == ":" and re.search(r"(public|private|protected)\s*$",
                                                      code[head_from:at])):
            head_from = at + 1
        elif char == "{" and at in pairs:
            head = code[head_from:at]
            end = pairs[at]
            if re.match(r"\s*[,{)]", code[end + 1 :]):  # an initialiser in the head
                at = end
            elif re.search(r"[\w>)]\s*\(", head) and "=" not in re.sub(r"\([^()]*\)", "", head):
                name = FUNCTION_NAME.search(head)
                first = head_from + len(head) - len(head.lstrip())
                yield name.group() if name else "?", code.count("\n", first, end) + 1
                at, head_from = end, end + 1
            elif not re.search(r"\b(namespace|class|struct|union|extern)\b", head):
                at, head_from = end, end + 1
            else:
                head_from = at + 1
        at += 1


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def kind_of(path: str) -> str:
    if path.endswith(".h"):
        return "header"
    is_test = path.startswith("tests/") or re.search(r"_test\.(cc|py)$", path)
    return "test" if is_test else "source"


def check_text(path: str, text: str, uses: dict[str, set[str]]) -> Iterator[Breach]:
    machine_paths = len(MACHINE_PATH.findall(text))
    if machine_paths and path != "tools/tidy_test.py":
        yield Breach("paths of one machine", path, machine_paths, 0)
    if not path.endswith(CODE) and not path.endswith("CMakeLists.txt"):
        return
    lines = text.splitlines()
    long_lines = sum(len(line) > MAX_COLUMNS for line in lines)
    if long_lines:
        yield Breach(f"lines over {MAX_COLUMNS} columns", path, long_lines, 0)
    limit = MAX_LINES[kind_of(path)]
    if len(lines) > limit:
        yield Breach("lines", path, len(lines), limit)
    for name in includes_upward(path, text, uses):
        yield Breach(f"includes of {name}, which its module may not use", path, 1, 0)
    functions = cpp_functions if path.endswith(CPP) else python_functions
    if path.endswith(CPP + (".py",)):
        for name, size in functions(text):
            if size > MAX_FUNCTION_LINES:
                yield Breach("function lines", f"{path}:{name}", size, MAX_FUNCTION_LINES)


def project_files(root: Path) -> Iterator[Path]:
    yield from (path for path in root.iterdir() if path.is_file())
    for folder in FOLDERS:
        yield from (path for path in (root / folder).rglob("*") if path.is_file())


def check_tree(root: Path) -> list[Breach]:
    uses = module_uses((root / "CMakeLists.txt").read_text())
    breaches = []
    for path in sorted(project_files(root)):
        name = path.relative_to(root).as_posix()
        if name.endswith(TEXT) or name in ("test", "quickstart", ".ci/run"):
            breaches += check_text(name, path.read_text(errors="replace"), uses)
    return breaches


def read_known(path: Path) -> dict[tuple[str, str], int]:
    known = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        if line and not line.startswith("#"):
            rule, place, size = line.split("\t")
            known[rule, place] = int(size)
    return known


def write_known(path: Path, breaches: list[Breach]) -> None:
    rows = sorted(f"{breach.rule}\t{breach.place}\t{breach.size}\n" for breach in breaches)
    path.write_text("# Known breaches of the layout rules: rule, place, size.  They may only shrink"
                    " (tools/tidy.py).\n" + "".join(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks the layout rules.")
    parser.add_argument("--accept", action="store_true", help="record today's breaches as known")
    root = Path(__file__).resolve().parent.parent
    breaches = check_tree(root)
    if parser.parse_args().accept:
        write_known(root / KNOWN, breaches)
        return 0
    known = read_known(root / KNOWN)
    new = [breach for breach in breaches
           if breach.size > known.get((breach.rule, breach.place), breach.limit)]
    for breach in new:
        print(breach)
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
