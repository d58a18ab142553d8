#!/usr/bin/env python3
"""Each rule of tidy.py: what it finds, and what it leaves alone."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tidy  # noqa: E402

CMAKE = """
caw_module(base   LIBS fmt::fmt)
caw_module(dev    DEPS base LIBS
           uring)
caw_module(space  DEPS dev)
caw_module(check  DEPS base)
"""
USES = tidy.module_uses(CMAKE)


def rules(path: str, text: str) -> list[str]:
    return [breach.rule for breach in tidy.check_text(path, text, USES)]


class Includes(unittest.TestCase):
    def test_modules_below_and_what_they_use_are_allowed(self):
        self.assertEqual(USES["space"], {"base", "dev", "space"})
        text = '#include "space/a.h"\n#include "base/b.h"\n#include "caw/c.h"\n#include <x/y.h>\n'
        self.assertEqual(rules("src/space/a.cc", text), [])

    def test_modules_above_and_beside_are_not(self):
        self.assertEqual(len(rules("src/dev/a.cc", '#include "space/a.h"\n')), 1)
        self.assertEqual(len(rules("src/check/a.cc", '#include "dev/a.h"\n')), 1)

    def test_only_unit_tests_use_the_tests_support(self):
        text = '#include "support/model.h"\n'
        self.assertEqual(rules("src/dev/a_test.cc", text), [])
        self.assertEqual(len(rules("src/dev/a.cc", text)), 1)


class Sizes(unittest.TestCase):
    def test_columns(self):
        self.assertEqual(rules("src/dev/a.cc", "x" * 100), [])
        self.assertEqual(rules("src/dev/a.cc", "x" * 101), ["lines over 100 columns"])
        self.assertEqual(rules("docs/a.md", "x" * 101), [])
        self.assertEqual(rules("src/dev/a.cc", "é" * 100), [])

    def test_lines(self):
        for path, limit in (("src/dev/a.h", 300), ("src/dev/a.cc", 1000),
                            ("src/dev/a_test.cc", 800), ("tests/model/a.cc", 800)):
            self.assertEqual(rules(path, "\n" * limit), [], path)
            self.assertEqual(rules(path, "\n" * (limit + 1)), ["lines"], path)

    def test_machine_paths(self):
        place = "/wo" + "rk/here"
        self.assertEqual(rules("docs/a.md", f"see {place}"), ["paths of one machine"])
        self.assertEqual(rules("docs/a.md", f"see docs{place}"), [])


class Functions(unittest.TestCase):
    def sizes(self, text: str) -> dict[str, int]:
        return dict(tidy.cpp_functions(text))

    def test_free_and_member_functions(self):
        text = ("namespace a {\n"
                "class B : public C {\n public:\n  int f() const {\n    return 1;\n  }\n"
                "  int g_ = 0;\n};\n"
                "static std::string\nh(int x) noexcept {\n  if (x) {\n    y();\n  }\n}\n"
                "}  // namespace a\n")
        self.assertEqual(self.sizes(text), {"f": 3, "h": 6})

    def test_constructors_with_initialisers(self):
        text = "B::B(int a)\n    : a_(a), b_{a, 1},\n      c_{2} {\n  go();\n}\n"
        self.assertEqual(self.sizes(text), {"B::B": 5})

    def test_braces_in_comments_strings_and_macros_do_not_count(self):
        text = ('#define M(x) { \\\n  {\nvoid f() {\n  // {\n  s("}{");\n  c(\'{\');\n'
                '  r(R"x({ " )x");\n  n = 1\'000;\n}\nvoid g() {}\n')
        self.assertEqual(self.sizes(text), {"f": 7, "g": 1})

    def test_tests_have_names_of_their_own(self):
        text = "TEST(A, One) {\n  a();\n}\nTEST_F(A, Two) {}\n"
        self.assertEqual(self.sizes(text), {"TEST(A, One)": 3, "TEST_F(A, Two)": 1})

    def test_data_and_enums_are_not_functions(self):
        text = "enum class E : int { a, b };\nconst int t[] = {\n  f(1),\n};\nint k = f(2);\n"
        self.assertEqual(self.sizes(text), {})

    def test_a_long_function_is_found(self):
        body = "  x();\n" * 69
        self.assertEqual(rules("src/dev/a.cc", "void f() {\n" + body + "}\n"), ["function lines"])
        body = "  x();\n" * 68
        self.assertEqual(rules("src/dev/a.cc", "void f() {\n" + body + "}\n"), [])
        body = "    x()\n" * 70
        self.assertEqual(rules("tools/a.py", "def f():\n" + body), ["function lines"])


class Known(unittest.TestCase):
    def test_what_is_written_is_read(self):
        import tempfile
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "known.txt"
            self.assertEqual(tidy.read_known(path), {})
            tidy.write_known(path, [tidy.Breach("lines", "src/a.h", 301, 300)])
            self.assertEqual(tidy.read_known(path), {("lines", "src/a.h"): 301})


if __name__ == "__main__":
    unittest.main()
