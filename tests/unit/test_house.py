"""The measurer of the house: each figure of a tree whose figures were counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from shield_engine.metrics.table import METRIC_NAMES
from tests import house

TREE = {
    "shield_engine/__init__.py": '"""Engine."""\n',
    "shield_engine/core.py": '''\
"""Core."""

LIMIT = 3
_RATES = ("recall", "fpr", "latency")
_SINGLE = {"recall": 1, "latency": 2}


class Figure:
    """A figure."""

    def read(self, a, b, c, d, e, f, g, h):
        """Eight parameters besides self."""
        assert a  # in the product
        return "assert and # fmt: skip in a string"


def wide(a, b, c, /, d, *rest, e, f, g, **more):
    return rest
''',
    "shield_engine/rules/__init__.py": "from shield_engine.rules.first import Rule\n",
    "shield_engine/rules/first.py": '''\
from typing import TYPE_CHECKING

from shield_engine.rules import second

if TYPE_CHECKING:
    from shield_engine.rules.third import Third
else:
    import json


class Rule: ...


def figure_text(value: float) -> str:
    """A formatter."""
    found = [one for one in str(value)]  # binds two
    return "".join(found)


def percent(value: str) -> str:
    return value
''',
    "shield_engine/rules/second.py": """\
from ..core import LIMIT


def later(kept, *, held=None):
    from .first import Rule

    with open(kept) as said:
        said.found = [  1]  # fmt: skip
    return Rule
""",
    "shield_engine/rules/third.py": '''\
from shield_engine.rules.first import figure_text


@staticmethod
def long():
    """Sixty-one lines from def to the last one."""
'''
    + "    pass\n" * 59,
    "dashboard/__init__.py": "",
    "dashboard/app.py": """\
LIMIT = 4
size = 1
TABLE = MappingProxyType({"f1": "F1", "mcc": "MCC"})
METRIC_TABLE = (Metric("f1", 1), Metric("ece", 2))


class Rule:
    later = 1


def _wide(): ...
""",
    "dashboard/app_pages/show.py": "size = 2\n" + "\n" * 59 + "last = 1",
}
# Lines: 1 + 18 + 1 + 21 + 9 + 65 + 0 + 11 + 61.
COUNTED = {
    "lines": 187,
    "room": 3,  # shield_engine/rules: its __init__.py is no file of the room
    "module": 65,
    "function": 61,
    "functions": 1,
    "parameters": 1,  # wide: 9
    "circles": 1,
    "names": 2,  # LIMIT and Rule
    "metrics": 3,
    "formatters": 1,
    "fmt-skip": 1,
    "asserts": 1,
    "vague": 5,
    "page": 61,
}

Tree = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Write files below a folder and return it."""

    def written(files: Mapping[str, str]) -> Path:
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return tmp_path

    return written


def measured(root: Path) -> Mapping[str, house.Measured]:
    """Return the figures of a tree."""
    return house.measure(house.read_modules(root))


def test_every_figure_of_a_small_tree_is_what_a_person_counts(tree: Tree) -> None:
    """Each figure has the value counted by hand, and there is no figure besides those."""
    assert {key: figure.value for key, figure in measured(tree(TREE)).items()} == COUNTED


def test_rooms_have_files_without_init_and_lines_with_it(tree: Tree) -> None:
    """A room is a folder; its `__init__.py` gives it lines, but is no file of it."""
    assert house.rooms_of(house.read_modules(tree(TREE))) == {
        "dashboard": (1, 11),
        "dashboard/app_pages": (1, 61),
        "shield_engine": (1, 19),
        "shield_engine/rules": (3, 96),
    }


@pytest.mark.parametrize(
    ("key", "places"),
    [
        ("functions", ["shield_engine/rules/third.py:5  long: 61 lines"]),
        ("parameters", ["shield_engine/core.py:17  wide: 9 parameters"]),
        ("asserts", ["shield_engine/core.py:13  assert a"]),
        ("fmt-skip", ["shield_engine/rules/second.py:8  said.found = [  1]  # fmt: skip"]),
        ("formatters", ["shield_engine/rules/first.py:14  figure_text"]),
        ("page", ["dashboard/app_pages/show.py:1  61 lines"]),
        (
            "names",
            [
                "shield_engine/core.py:3  LIMIT, also dashboard/app.py:1",
                "shield_engine/rules/first.py:11  Rule, also dashboard/app.py:7",
            ],
        ),
        (
            "metrics",
            [
                "dashboard/app.py:3  TABLE: 2 metrics",
                "dashboard/app.py:4  METRIC_TABLE: 2 metrics",
                "shield_engine/core.py:4  _RATES: 2 metrics",
            ],
        ),
        (
            "vague",
            [
                "shield_engine/rules/first.py:16  found",
                "shield_engine/rules/first.py:16  one",
                "shield_engine/rules/second.py:4  held",
                "shield_engine/rules/second.py:4  kept",
                "shield_engine/rules/second.py:7  said",
            ],
        ),
    ],
)
def test_list_prints_every_place_of_a_figure(
    tree: Tree, capsys: pytest.CaptureFixture[str], key: str, places: list[str]
) -> None:
    """`--list KEY` prints file, line and what is there, and judges nothing."""
    assert house.main(["--root", str(tree(TREE)), "--list", key]) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == [f"  {place}" for place in places]


@pytest.mark.parametrize(
    ("path", "statement", "names"),
    [
        ("shield_engine/ml/__init__.py", "from .loader import X", ["shield_engine.ml.loader"]),
        ("shield_engine/ml/__init__.py", "from . import loader", ["shield_engine.ml.loader"]),
        ("shield_engine/ml/__init__.py", "from ..core import X", ["shield_engine.core"]),
        ("shield_engine/ml/new.py", "from .loader import X", ["shield_engine.ml.loader"]),
        ("shield_engine/ml/new.py", "from . import X", ["shield_engine.ml"]),
        (
            "shield_engine/ml/new.py",
            "from .. import core, ml",
            ["shield_engine.core", "shield_engine.ml"],
        ),
        ("shield_engine/ml/new.py", "import json, shield_engine.core", ["shield_engine.core"]),
        ("shield_engine/ml/new.py", "from shield_engine.ml import new, json", ["shield_engine.ml"]),
    ],
)
def test_import_names_the_module_it_reads(
    tree: Tree, path: str, statement: str, names: list[str]
) -> None:
    """Relative imports, modules of a room and names of a module are told apart."""
    empty = ("shield_engine/core.py", "shield_engine/ml/__init__.py", "shield_engine/ml/loader.py")
    root = tree(dict.fromkeys((*empty, "dashboard/app.py"), "") | {path: statement})
    modules = house.read_modules(root)
    (module,) = (module for module in modules if module.path == path)
    imports = house.imports_of(module, frozenset(module.name for module in modules))
    assert [item.module for item in imports] == names


def test_circle_is_named_with_its_shortest_way(tree: Tree) -> None:
    """An import inside a function closes a circle; the way is one that runs, where there is one."""
    (circle,) = measured(tree(TREE))["circles"].places
    assert circle.where == "shield_engine/rules/first.py:3"
    assert circle.what == (
        "shield_engine.rules.first -> shield_engine.rules.second -> shield_engine.rules.first, "
        "3 modules in the circle"
    )


def test_circle_of_type_checking_imports_is_counted_and_marked(tree: Tree) -> None:
    """A circle that only a type checker walks is one too, and says so."""
    root = tree(
        {
            "shield_engine/a.py": "import typing\nif typing.TYPE_CHECKING:\n    from . import b\n",
            "shield_engine/b.py": "import shield_engine.a\n",
            "shield_engine/c.py": "from shield_engine import a, b\n",
            "dashboard/app.py": "from shield_engine import c\n",
        }
    )
    (circle,) = measured(root)["circles"].places
    assert (circle.where, circle.what) == (
        "shield_engine/a.py:3",
        "shield_engine.a -> shield_engine.b -> shield_engine.a (only with TYPE_CHECKING), "
        "2 modules in the circle",
    )


def test_tree_within_the_targets_exits_0_and_one_over_exits_1(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    """One circle is enough to fail, and the message names file and line; `--report` never fails."""
    sound = {
        "shield_engine/a.py": "X = 1\n",
        "shield_engine/b.py": "from shield_engine.a import X\n",
        "dashboard/app.py": "from shield_engine import b\n",
    }
    root = tree(sound)
    assert house.main(["--root", str(root)]) == 0
    assert "over" not in capsys.readouterr().out.replace("functions over", "")

    tree({"shield_engine/a.py": "def x():\n    import shield_engine.b\n"})
    assert house.main(["--root", str(root)]) == 1
    assert capsys.readouterr().out.endswith(
        "import circles: 1, at most 0\n  shield_engine/a.py:2  shield_engine.a -> shield_engine.b "
        "-> shield_engine.a, 2 modules in the circle\n"
    )

    assert house.main(["--root", str(root), "--report"]) == 0
    assert "shield_engine/a.py:2" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "lines", "is_over"),
    [
        ("shield_engine/a.py", 600, False),
        ("shield_engine/a.py", 601, True),
        ("shield_engine/heuristics/normalizer.py", 690, False),
        ("shield_engine/heuristics/normalizer.py", 691, True),
        ("dashboard/app_pages/runs.py", 60, False),
        ("dashboard/app_pages/runs.py", 61, True),
    ],
)
def test_length_of_a_module_has_its_own_limit(
    tree: Tree, path: str, lines: int, is_over: bool
) -> None:
    """A module may have 600 lines, the normalizer 690, a page 60."""
    root = tree({"shield_engine/z.py": "", "dashboard/app.py": "", path: "x = 1\n" * lines})
    assert house.main(["--root", str(root)]) == int(is_over)


@pytest.mark.parametrize(
    ("room", "files", "is_over"),
    [
        ("shield_engine", 14, False),
        ("shield_engine", 15, True),
        ("shield_engine/ml", 12, False),
        ("shield_engine/ml", 13, True),
        ("dashboard", 13, True),
    ],
)
def test_room_has_a_dozen_files_and_the_root_14(
    tree: Tree, room: str, files: int, is_over: bool
) -> None:
    """A room may have 12 files, the root of the engine 14, without `__init__.py`."""
    root = tree(
        {f"{package}/__init__.py": "" for package in house.PACKAGES}
        | {f"{room}/__init__.py": ""}
        | {f"{room}/m{number}.py": "" for number in range(files)}
    )
    figure = measured(root)["room"]
    assert [place.path for place in figure.offenders] == ([room] if is_over else [])
    assert figure.value == files


def test_place_over_its_limit_is_named_before_a_larger_one_that_has_leave(tree: Tree) -> None:
    """The figure is that of the module that breaks the target, not of the longer one allowed."""
    root = tree(
        {
            "shield_engine/heuristics/normalizer.py": "x = 1\n" * 680,
            "shield_engine/a.py": "x = 1\n" * 610,
            "dashboard/app.py": "",
        }
    )
    figure = measured(root)["module"]
    assert (figure.value, figure.limit) == (610, 600)
    assert [place.path for place in figure.offenders] == ["shield_engine/a.py"]


def test_missing_package_is_an_error(tree: Tree) -> None:
    """A tree without the product has no figures; it is not a small house."""
    root = tree({"shield_engine/a.py": ""})
    with pytest.raises(FileNotFoundError, match="dashboard"):
        house.read_modules(root)


def test_every_metric_of_the_product_is_known() -> None:
    """The names looked for in constants keyed by metric are those of the metric table."""
    assert set(METRIC_NAMES) <= house.METRICS
