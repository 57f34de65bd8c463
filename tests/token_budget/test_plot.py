"""The picture: parsed as XML and measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, fromstring
from zoneinfo import ZoneInfo

import pytest

from tests.token_budget.test_history import HOUR_MS, ms, utc, zone
from token_budget.ledger.records import FOREVER_MS, AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.run_budgets import write_budgets
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Budget, Scope, Unit, Usage, Weights
from token_budget.usage.history import ESTIMATES
from token_budget.usage.plot import plot
from token_budget.usage.plot_data import PlotRequest, WindowLimit, day_starts
from token_budget.usage.plot_limits import given_limits, limits_to_draw
from token_budget.usage.plot_panels import COLORS, LEFT, OTHER_COLOR, PLOT_TOP, PLOT_WIDTH, SHORT, TALL
from token_budget.windows import Window

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "/<script>alert('1')</script>&\"\033[31m\n\u202e\0\uffff"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger(tmp_path / "ledger.db")
    yield opened
    opened.close()


def use(ledger: SqliteLedger, *uses: tuple[str | int, int, str | None], cost: int | None = None) -> None:
    """Use at moments: tokens and base command of each."""
    for at, tokens, command in uses:
        at_ms = ms(at) if isinstance(at, str) else at
        name = f"{at}/{command}"
        attempt = AttemptRecord("r", name, 1, at_ms, base_command=command)
        ledger.write(
            runs=[RunRecord("r", "m", 0)],
            attempts=[attempt],
            records=[UsageRecord(name, "r", name, 1, at_ms, "m", Usage(tokens), cost)],
        )


class Picture:
    """A drawn SVG, and where things are in it."""

    def __init__(
        self,
        ledger: SqliteLedger,
        *limits: WindowLimit,
        span_ms: tuple[int, int] = (0, FOREVER_MS),
        local: Callable[[int], datetime] = utc,
        unit: Unit = Unit.TOKENS,
        by: Literal["command", "model"] = "command",
    ) -> None:
        self.text = plot(ledger, PlotRequest(*span_ms, unit, by, limits, local), "svg")
        self.root = fromstring(self.text)

    def group(self, name: str) -> Element:
        (found,) = (one for one in self.root.iter(f"{SVG}g") if name in (one.get("id"), one.get("class")))
        return found

    def bars(self, name: str = "commands") -> list[tuple[str, float, float, float, float]]:
        """Of each in a panel: colour, left, width, bottom, height."""
        found = [bar for bar in self.group(name).iter(f"{SVG}rect") if bar.get("class") == "bar"]

        def place(bar: Element) -> tuple[str, float, float, float, float]:
            x, width, y, height = (float(bar.get(key, "")) for key in ("x", "width", "y", "height"))
            return str(bar.get("fill")), x, width, y + height, height

        return [place(bar) for bar in found]

    def tips(self, name: str = "commands") -> list[str]:
        return [title.text or "" for title in self.group(name).iter(f"{SVG}title")]

    def words(self, name: str | None = None) -> list[str]:
        part = self.root if name is None else self.group(name)
        return [word.text or "" for word in part.iter(f"{SVG}text")]

    def line(self, name: str) -> list[tuple[float, float]]:
        """The corners of a panel's step line."""
        (path,) = (one.get("d", "") for one in self.group(name).iter(f"{SVG}path") if one.get("class") == "use")
        begin = re.match(r"M([\d.]+) ([\d.]+)", path)
        assert begin is not None
        x, y = map(float, begin.groups())
        corners = [(x, y)]
        for axis, value in re.findall(r"([HV])([\d.]+)", path):
            x, y = (float(value), y) if axis == "H" else (x, float(value))
            corners.append((x, y))
        return corners


def across(share: float) -> object:
    """Where a share of the time axis is."""
    return pytest.approx(LEFT + PLOT_WIDTH * share, abs=0.06)


def up(top: float, tall: float, share: float) -> object:
    """Where a share of a panel's height is."""
    return pytest.approx(top + tall * (1 - share), abs=0.06)


def test_bars_are_as_high_as_their_tokens_and_stand_on_each_other(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 300, "/a"), ("11-24T13:00", 100, "/a"), ("11-24T14:00", 200, "/b"))
    use(ledger, ("11-26T12:00", 50, "/b"))
    picture = Picture(ledger)
    (a, b, late), unit = picture.bars(), TALL / 600  # the axis ends at 600
    assert [bar[0] for bar in (a, b, late)] == [COLORS[0], COLORS[1], COLORS[1]]
    assert [bar[4] for bar in (a, b, late)] == pytest.approx([400 * unit, 200 * unit, 50 * unit], abs=0.01)
    assert b[3] == pytest.approx(a[3] - a[4], abs=0.01) and late[3] == pytest.approx(a[3], abs=0.01)
    assert a[1:3] == b[1:3] and late[1] - a[1] == pytest.approx(PLOT_WIDTH * 2 / 3, abs=0.01)
    assert a[1] > LEFT and late[1] + late[2] < LEFT + PLOT_WIDTH
    assert picture.tips() == [
        "2026-11-24: /a 400 tokens",
        "2026-11-24: /b 200 tokens",
        "2026-11-26: /b 50 tokens",
    ]


def test_the_cumulative_line_ends_at_the_total(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 300, "/a"), ("11-25T00:00", 100, "/b"), ("11-25T18:00", 80, "/a"), cost=250_000_000)
    picture = Picture(ledger)
    assert picture.line("cumulative") == [
        *((across(0), up(PLOT_TOP, TALL, 0)), (across(0.25), up(PLOT_TOP, TALL, 0))),
        *((across(0.25), up(PLOT_TOP, TALL, 0.6)), (across(0.5), up(PLOT_TOP, TALL, 0.6))),
        *((across(0.5), up(PLOT_TOP, TALL, 0.8)), (across(0.875), up(PLOT_TOP, TALL, 0.8))),
        *((across(0.875), up(PLOT_TOP, TALL, 0.96)), (across(18.25 / 48 + 0.5), up(PLOT_TOP, TALL, 0.96))),
    ]
    assert picture.words("cumulative")[-2:] == ["480 tokens", "$0.75 (estimate)"]
    use(ledger, ("11-25T18:01", 20, "/a"))
    assert Picture(ledger).words("cumulative")[-2:] == ["500 tokens", "$0.75+ (estimate)"]


def test_titles_and_labels(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 3_000, "/a"), ("12-03T12:00", 1_500, None))
    picture = Picture(ledger)
    assert picture.root.findtext(f"{SVG}title") == "Token use, 2026-11-24 to 2026-12-03"
    assert picture.root.findtext(f"{SVG}desc") == "4,500 tokens in all; by command: /a 3.0K, (prompt) 1.5K."
    assert picture.words()[0] == "Token use, 2026-11-24 to 2026-12-03"
    cumulative, commands = picture.words("cumulative"), picture.words("commands")
    assert cumulative[:7] == ["Cumulative use", "0", "1K", "2K", "3K", "4K", "5K"] and cumulative[7] == "tokens"
    assert commands[:5] == ["Use by day and base command", "0", "1K", "2K", "3K"]
    assert commands[5:12] == ["tokens a day", "11-24", "11-26", "11-28", "11-30", "12-02", "/a"]
    assert commands[12:] == ["3.0K", "(prompt)", "1.5K", f"days of 2026, local time; {ESTIMATES}"]


def test_few_days_have_hours(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 3_000, "/a"))
    one = Picture(ledger)
    assert one.root.findtext(f"{SVG}title") == "Token use, 2026-11-24"
    hours = ["11-24", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00"]
    assert [word for word in one.words("cumulative") if word in hours or ":" in word] == hours
    use(ledger, ("11-25T12:00", 3_000, "/a"))
    hours = ["11-24", "06:00", "12:00", "18:00", "11-25", "06:00", "12:00", "18:00"]
    assert [word for word in Picture(ledger).words("commands") if re.fullmatch(r"\d\d[-:]\d\d", word)] == hours


def test_a_budget_is_a_line_only_where_one_is_asked_for(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 300, "/a"), ("11-25T12:00", 500, "/b"))
    assert "budget" not in Picture(ledger).text
    picture = Picture(ledger, ("my limit", "daily", 400))
    (line,) = (one for one in picture.root.iter(f"{SVG}line") if one.get("class") == "budget")
    top = PLOT_TOP + TALL + 78
    assert (float(line.get("x1", "")), float(line.get("x2", ""))) == (LEFT, LEFT + PLOT_WIDTH)
    assert float(line.get("y1", "")) == float(line.get("y2", "")) == up(top, SHORT, 400 / 500)
    words = picture.words("budget")
    assert words[0] == "Use within each day" and words[-2:] == ["my limit: 400", "most used: 500 (125 %)"]
    bars = picture.bars("budget")
    assert [bar[4] for bar in bars] == pytest.approx([SHORT * 0.6, SHORT], abs=0.06)
    assert [bar[3] for bar in bars] == pytest.approx([top + SHORT] * 2, abs=0.06)
    assert [bar[1:3] for bar in bars] == [bar[1:3] for bar in picture.bars()]  # above each other
    assert picture.tips("budget") == ["2026-11-24: 300 tokens", "2026-11-25: 500 tokens"]


def test_each_week_begins_at_zero(ledger: SqliteLedger) -> None:
    use(ledger, ("11-22T12:00", 300, "/a"), ("11-23T12:00", 500, "/b"))
    picture = Picture(ledger, ("my limit", "weekly", 400))
    top = PLOT_TOP + TALL + 78
    assert [y for _, y in picture.line("budget")] == [up(top, SHORT, share) for share in (0, 0, 0.6, 0.6, 0, 0, 1, 1)]


def test_a_picture_in_money(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 300, "/a"), ("11-25T12:00", 500, "/b"), cost=250_000_000)
    use(ledger, ("11-25T13:00", 7_000, "/b"))
    picture = Picture(ledger, ("limit", "daily", 10**9), unit=Unit.USD)
    assert picture.root.findtext(f"{SVG}title") == "Cost, 2026-11-24 to 2026-11-25"
    assert picture.root.findtext(f"{SVG}desc") == "$0.50 in all; by command: /a $0.25, /b $0.25."
    assert picture.words("cumulative")[-2:] == ["$0.50+ (estimate)", "7.0K tokens have no price"]
    assert picture.words("cumulative")[1:8] == ["$0.00", "$0.10", "$0.20", "$0.30", "$0.40", "$0.50", "USD"]
    assert picture.words("budget")[-2:] == ["limit: $1.00", "most used: $0.25 (25 %)"]
    assert picture.tips() == ["2026-11-24: /a $0.25", "2026-11-25: /b $0.25"]
    page = fromstring(plot(ledger, PlotRequest(unit=Unit.USD, local=utc), "html"))
    assert page.findtext("body/div/table/caption") == "USD by day and base command"
    assert [cell.text for cell in list(page.iter("tr"))[-1]] == ["total", "$0.25", "$0.25", "$0.50"]


def test_money_that_nobody_knows_is_drawn_as_nothing(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 300, "/a"))
    picture = Picture(ledger, unit=Unit.USD)
    assert picture.bars() == [] and picture.words("cumulative")[-1] == "300 tokens have no price"


def test_a_picture_by_model(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 300, "/a"), ("11-25T12:00", 500, None))
    picture = Picture(ledger, by="model")
    assert picture.tips("models") == ["2026-11-24: m 300 tokens", "2026-11-25: m 500 tokens"]
    assert picture.words("models")[0] == "Use by day and model"
    assert picture.root.findtext(f"{SVG}desc") == "800 tokens in all; by model: m 800."
    page = fromstring(plot(ledger, PlotRequest(by="model", local=utc), "html"))
    assert page.findtext("body/div/table/caption") == "Tokens by day and model"


# -- limits --


def run_with(ledger: SqliteLedger, *limits: Budget) -> None:
    ledger.write(runs=[RunRecord("last", "m", ms("11-24T12:00"), budgets=write_budgets(limits, Weights()))])


def test_limits_are_those_of_the_config_or_else_of_the_last_run(ledger: SqliteLedger, tmp_path: Path) -> None:
    run_with(ledger, Budget(700, scope=Scope.DAILY), Budget(5, scope=Scope.OVERALL))
    assert limits_to_draw(ledger, tmp_path, Unit.TOKENS, {}) == [("daily budget", "daily", 700)]
    assert limits_to_draw(ledger, tmp_path, Unit.USD, {}) == []
    config = tmp_path / "claude-orchestrator.json"
    config.write_text('{"budget": {"weekly_token_budget": "5M", "// why": 1, "monthly_cost_budget": 2.5}}')
    assert limits_to_draw(ledger, tmp_path, Unit.TOKENS, {}) == [("weekly budget", "weekly", 5_000_000)]
    assert limits_to_draw(ledger, tmp_path, Unit.USD, {}) == [("monthly budget", "monthly", 2_500_000_000)]
    both = limits_to_draw(ledger, tmp_path, Unit.TOKENS, {Window.DAILY: 9, Window.WEEKLY: 8})
    assert both == [("daily budget", "daily", 9), ("weekly budget", "weekly", 8)]
    config.write_text('{"instances": []}')
    assert limits_to_draw(ledger, tmp_path, Unit.TOKENS, {}) == [("daily budget", "daily", 700)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"budget": {"daily_token_budget": "lots"}}', "budget.daily_token_budget: expected a positive whole number"),
        ('{"budget": {},}', "an extra comma"),
    ],
)
def test_a_config_that_is_wrong_is_refused(ledger: SqliteLedger, tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "claude-orchestrator.json").write_text(text)
    with pytest.raises(ValueError, match=reason):
        limits_to_draw(ledger, tmp_path, Unit.TOKENS, {})


def test_limits_are_read_as_people_write_them() -> None:
    assert given_limits({"daily": "5M", "weekly": None}, Unit.TOKENS) == {Window.DAILY: 5_000_000}
    assert given_limits({"monthly": "$2.50"}, Unit.USD) == {Window.MONTHLY: 2_500_000_000}
    with pytest.raises(ValueError, match=r"^--daily: expected a positive whole number"):
        given_limits({"daily": "0"}, Unit.TOKENS)


def test_each_budget_has_a_panel_and_the_rest_moves_down(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 300, "/a"))
    none, three = Picture(ledger), Picture(ledger, ("d", "daily", 1), ("w", "weekly", 9_000), ("m", "monthly", 300))
    panels = [group for group in three.root.iter(f"{SVG}g") if group.get("class") == "budget"]
    heads = [panel.findtext(f"{SVG}text") for panel in panels]
    assert heads == ["Use within each day", "Use within each week", "Use within each month"]
    lower = 3 * (SHORT + 78)
    assert three.bars()[0][3] == pytest.approx(none.bars()[0][3] + lower, abs=0.01)
    assert float(three.root.get("height", "")) == float(none.root.get("height", "")) + lower


def test_a_window_that_began_before_the_span_has_what_was_used_in_it(ledger: SqliteLedger) -> None:
    use(ledger, ("11-22T12:00", 1_000, "/a"))  # a Sunday: the week before
    use(ledger, ("11-23T12:00", 100, "/a"), ("11-25T12:00", 300, "/a"), ("11-30T12:00", 200, "/a"))
    picture = Picture(ledger, ("w", "weekly", 500), span_ms=(ms("11-25T00:00"), ms("12-02T00:00")))
    top = PLOT_TOP + TALL + 78
    assert [y for _, y in picture.line("budget")] == [
        up(top, SHORT, share) for share in (0.2, 0.2, 0.8, 0.8, 0, 0, 0.4, 0.4)
    ]
    assert picture.words("budget")[-1] == "most used: 400 (80 %)"


@pytest.mark.parametrize("budget", [("x", "yearly", 5), ("x", "daily", 0), ("x", "weekly", -1)])
def test_a_budget_that_is_none_is_refused(ledger: SqliteLedger, budget: WindowLimit) -> None:
    with pytest.raises(ValueError, match=r"^budget x: expected daily, weekly or monthly and a limit above zero$"):
        Picture(ledger, budget)


def test_more_commands_than_colours_become_other(ledger: SqliteLedger) -> None:
    at = "11-24T12:00"
    use(ledger, (at, 101, "other"), *((at, 100 - place, f"/c{place}") for place in range(1, len(COLORS) + 3)))
    picture = Picture(ledger)
    assert [bar[0] for bar in picture.bars()] == [*COLORS, OTHER_COLOR]
    rest = sum(100 - place for place in range(len(COLORS), len(COLORS) + 3))
    assert picture.tips()[0] == "2026-11-24: other 101 tokens"
    assert picture.tips()[-1] == f"2026-11-24: (other) {rest} tokens"
    assert "(other)" in picture.words("commands") and "/c8" not in picture.words("commands")
    keys = [key.get("fill") for key in picture.group("commands").iter(f"{SVG}rect") if key.get("class") == "key"]
    assert keys == [*COLORS, OTHER_COLOR]


@pytest.mark.parametrize("form", ["svg", "html"])
def test_hostile_names_are_text(ledger: SqliteLedger, form: str) -> None:
    use(ledger, ("11-24T12:00", 5, HOSTILE), ("11-24T12:00", 3, "/" + "漢" * 300))
    text = plot(ledger, PlotRequest(limits=[(HOSTILE, "daily", 5)], local=utc), form)  # type: ignore[arg-type]
    root = fromstring(text)
    assert not [one for one in root.iter() if "script" in one.tag or any(key.startswith("on") for key in one.attrib)]
    shown = r"""/<script>alert('1')</script>&"\x1b[31m\x0a\u202e\x00\uffff"""
    assert any(shown in (one.text or "") for one in root.iter())
    assert all(char >= " " or char == "\n" for char in text) and "\u202e" not in text
    assert all(len(word.text or "") <= 120 for word in root.iter(f"{SVG}text"))


@pytest.mark.parametrize("form", ["svg", "html"])
@pytest.mark.parametrize("empty", [True, False])
def test_a_picture_needs_nothing_else(ledger: SqliteLedger, form: str, empty: bool) -> None:
    if not empty:
        use(ledger, ("11-24T12:00", 5, "/a"))
    text = plot(ledger, PlotRequest(limits=[("d", "daily", 5)], local=utc), form)  # type: ignore[arg-type]
    rest = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"http|//|url\(|@import|<script|<link|<img|src=|href=", rest, re.IGNORECASE)
    text.encode("ascii")


def test_a_page_has_the_picture_and_its_figures(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 1_300, "/a"), ("11-26T12:00", 200, "/b"), ("11-26T13:00", 40, "/a"))
    text = plot(ledger, PlotRequest(local=utc), "html")
    assert text.startswith("<!DOCTYPE html>\n") and 'charset="utf-8"' in text
    root = fromstring(text)
    assert root.findtext("head/title") == "Token use, 2026-11-24 to 2026-11-26"
    picture = root.find(f"body/{SVG}svg")
    assert picture is not None and Picture(ledger).text.strip() in text
    assert [[cell.text for cell in row] for row in root.iter("tr")] == [
        ["day", "/a", "/b", "total"],
        ["2026-11-24", "1,300", "0", "1,300"],
        ["2026-11-25", "0", "0", "0"],
        ["2026-11-26", "40", "200", "240"],
        ["total", "1,340", "200", "1,540"],
    ]


@pytest.mark.parametrize("span_ms", [(0, FOREVER_MS), (ms("11-24T00:00"), ms("11-25T00:00"))])
def test_nothing_used_is_said(ledger: SqliteLedger, span_ms: tuple[int, int]) -> None:
    use(ledger, *([("11-25T00:00", 5, "/a")] if span_ms[0] else []))  # the first moment after the span
    picture = Picture(ledger, ("d", "daily", 5), span_ms=span_ms, local=utc)
    assert picture.words() == ["Token use", "Nothing was used in this time."]
    page = fromstring(plot(ledger, PlotRequest(*span_ms, local=utc), "html"))
    assert page.find("body/table") is None and page.find(f"body/{SVG}svg") is not None


def test_the_span_is_drawn_whole(ledger: SqliteLedger) -> None:
    use(ledger, ("11-22T12:00", 9, "/a"), ("11-24T12:00", 5, "/a"), ("11-26T06:00", 7, "/a"))
    picture = Picture(ledger, span_ms=(ms("11-23T05:07"), ms("11-26T06:00")))
    assert picture.root.findtext(f"{SVG}title") == "Token use, 2026-11-23 to 2026-11-26"
    assert picture.tips() == ["2026-11-24: /a 5 tokens"]
    assert picture.line("cumulative")[-1][0] == across(3.25 / 4)  # it ends where the span does


def test_corrections_below_zero_are_drawn_as_nothing(ledger: SqliteLedger) -> None:
    use(ledger, ("11-24T12:00", 5, "/a"), ("11-25T12:00", -3, "/b"))
    picture = Picture(ledger, ("d", "daily", 5))
    assert picture.tips() == ["2026-11-24: /a 5 tokens"]
    assert picture.words("cumulative")[-1] == "2 tokens"
    assert picture.line("cumulative")[-1][1] == up(PLOT_TOP, TALL, 2 / 5)


@pytest.mark.parametrize(("day", "hours"), [("03-29", 23), ("10-25", 25)])
def test_a_day_on_which_the_clocks_change_is_one_bar_of_its_own_width(
    ledger: SqliteLedger, day: str, hours: int
) -> None:
    berlin = zone("Europe/Berlin")
    begin_ms = ms(f"{day}T00:00") - (2 if hours == 25 else 1) * HOUR_MS
    use(ledger, *((begin_ms + hour * HOUR_MS, 1, "/a") for hour in range(-24, hours + 24)))
    picture = Picture(ledger, ("d", "daily", 100), local=berlin)
    bars = picture.bars()
    assert [bar[4] for bar in bars] == pytest.approx([TALL * count / 25 for count in (24, hours, 24)], abs=0.01)
    assert [tip.split()[-2] for tip in picture.tips()] == ["24", str(hours), "24"]
    assert bars[2][1] - bars[1][1] == pytest.approx(PLOT_WIDTH * hours / (48 + hours), abs=0.01)
    assert picture.words("budget")[-1] == f"most used: {max(24, hours)} ({max(24, hours)} %)"


@pytest.mark.parametrize(
    ("name", "day", "hours"),
    [
        ("UTC", "11-24", 24),
        ("Asia/Kathmandu", "11-24", 24),
        ("Europe/Berlin", "03-29", 23),
        ("Europe/Berlin", "10-25", 25),
        ("Australia/Lord_Howe", "04-05", 24.5),  # half an hour
        ("Africa/Cairo", "04-24", 23),  # at midnight, which is not
        ("America/Havana", "11-01", 25),  # midnight comes twice
    ],
)
def test_days_begin_where_the_date_changes(name: str, day: str, hours: float) -> None:
    local = zone(name)
    noon_ms = round(datetime.fromisoformat(f"2026-{day}T12:00").replace(tzinfo=ZoneInfo(name)).timestamp() * 1000)
    begin, end = day_starts(noon_ms, noon_ms + 1, local)
    assert end - begin == hours * HOUR_MS
    assert local(begin).date() == local(end - 1).date() == local(noon_ms).date()
    assert local(begin - 1).date() < local(begin).date() < local(end).date()
    assert day_starts(begin, end + 1, local)[:2] == [begin, end]
