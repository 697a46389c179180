"""Choices outlive their page and follow links; what is exported cannot run as a formula."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import widgets
from dashboard.server import OPTIONS
from dashboard.widgets import csv_bytes

CHOOSING = """
import streamlit as st
from dashboard.widgets import pick
options = st.session_state.setdefault("offered", ["a", "b", "c"])
picked = pick("Letter", options, key="letter", in_url="letter", segmented=SEGMENTED)
st.text(f"picked {picked}")
"""


@pytest.fixture(params=[False, True], ids=["box", "segments"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> AppTest:
    """An app of two pages, of which one lets choose a letter."""
    (tmp_path / "choosing.py").write_text(CHOOSING.replace("SEGMENTED", str(request.param)))
    (tmp_path / "other.py").write_text("import streamlit as st\nst.text('nothing')\n")
    (tmp_path / "app.py").write_text(
        "import streamlit as st\n"
        "st.navigation([st.Page('choosing.py', default=True), st.Page('other.py')]).run()\n"
    )
    return AppTest.from_file(str(tmp_path / "app.py"), default_timeout=30)


def choose(app: AppTest, letter: str) -> AppTest:
    """Choose a letter, whichever widget there is."""
    widget = (app.selectbox or app.segmented_control)[0]
    return widget.set_value(letter).run()


def picked(app: AppTest) -> str:
    """Return what the page says was picked; nothing may have gone wrong."""
    assert not app.exception
    return app.text[0].value.removeprefix("picked ")


def test_a_choice_outlives_its_page_and_is_in_the_url(app: AppTest) -> None:
    """The first option comes first; another stays after a visit elsewhere, and links carry it."""
    assert picked(app.run()) == "a"
    assert picked(choose(app, "c")) == "c"
    assert app.query_params["letter"] == "c"
    app.switch_page("other.py").run()
    assert picked(app.switch_page("choosing.py").run()) == "c"


def test_a_link_chooses_once(app: AppTest) -> None:
    """A link's option is taken, a later choice of the user is not undone by it."""
    app.query_params["letter"] = "b"
    assert picked(app.run()) == "b"
    assert picked(choose(app, "a")) == "a"
    assert picked(app.run()) == "a"
    app.query_params["letter"] = "no letter"
    assert picked(app.run()) == "a"


def test_a_choice_that_is_gone_gives_way(app: AppTest) -> None:
    """What was deleted is not chosen any more, on its page or on the way back to it."""
    choose(app.run(), "c")
    app.session_state["offered"] = ["a", "b"]
    assert picked(app.run()) == "a"
    choose(app, "b")
    app.switch_page("other.py").run()
    app.session_state["offered"] = ["c", "a"]
    assert picked(app.switch_page("choosing.py").run()) == "c"


def test_no_cell_of_an_export_runs_as_a_formula() -> None:
    """Texts and headers that begin like a formula get an apostrophe; numbers stay numbers."""
    frame = pd.DataFrame(
        {
            "=cmd": [
                "=1+1",
                "@x",
                "+1",
                "-1",
                "\tx",
                "\rx",
                "\n=1",
                "＝1",
                "＋1",
                "－1",
                "＠x",
                "ok",
            ],
            "n": [-1.5] * 12,
        }
    )
    rows = list(csv.reader(io.StringIO(csv_bytes(frame).decode("utf-8"), newline="")))
    assert rows[0] == ["'=cmd", "n"]
    assert [row[0] for row in rows[1:]] == [
        *("'=1+1", "'@x", "'+1", "'-1", "'\tx", "'\rx", "'\n=1"),
        *("'＝1", "'＋1", "'－1", "'＠x", "ok"),
    ]
    assert {row[1] for row in rows[1:]} == {"-1.5"}


def test_an_export_leaves_the_shown_table_as_it_was() -> None:
    """Neutralising happens on a copy."""
    frame = pd.DataFrame({"a": ["=1"]})
    csv_bytes(frame)
    assert frame["a"].tolist() == ["=1"]


def test_only_our_own_csv_of_a_table_is_offered(tmp_path: Path) -> None:
    """The toolbar's download, which writes cells as they are, is off; every table offers ours."""
    assert OPTIONS["client.disableDataExport"] is True
    (tmp_path / "app.py").write_text(
        "import pandas as pd\nfrom dashboard.widgets import show_table\n"
        "show_table(pd.DataFrame({'a': ['=1']}), key='cells')\n"
    )
    app = AppTest.from_file(str(tmp_path / "app.py"), default_timeout=30).run()
    assert not app.exception
    assert [button.proto.label for button in app.get("download_button")] == ["CSV"]


def test_every_table_is_shown_by_the_one_function() -> None:
    """No page calls `st.dataframe` by itself, so none goes without its safe download."""
    pages = Path(widgets.__file__).parent.rglob("*.py")
    calls = [path.name for path in pages if "st.dataframe(" in path.read_text(encoding="utf-8")]
    assert calls == ["widgets.py"]
