"""What is sent to a terminal, as a terminal understands it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.ui.redraw import erase, update
from token_budget.text import display_width, fit

WIDTH = 40
SEQUENCE = re.compile(r"\033\[(\d*)([A-Za-z])|(.)", re.DOTALL)
BLANK = ("", " ")


@dataclass
class Screen:
    """A terminal that understands what `update` sends. A cell is its colour and its character."""

    rows: list[list[tuple[str, str]]] = field(default_factory=lambda: [[BLANK] * WIDTH for _ in range(60)])
    row: int = 0
    column: int = 0
    color: str = ""

    def feed(self, text: str) -> None:
        for number, letter, char in SEQUENCE.findall(text):
            count = int(number or 1)
            match letter or char:
                case "F" if letter:
                    self.row, self.column = self.row - count, 0
                    assert self.row >= 0, "above the top"
                case "E" if letter:
                    self.row, self.column = self.row + count, 0
                case "C" if letter:
                    self.column += count
                case "K" if letter:
                    self.rows[self.row][self.column :] = [BLANK] * (WIDTH - self.column)
                case "J" if letter:
                    assert self.column == 0
                    self.rows[self.row :] = [[BLANK] * WIDTH for _ in self.rows[self.row :]]
                case "m" if letter:
                    self.color = "" if number in ("", "0") else number
                case "\n":
                    self.row, self.column = self.row + 1, 0
                case _:
                    self._put(char)

    def _put(self, char: str) -> None:
        width = display_width(char)
        if not width and not self.column:
            return
        if not width:
            color, before = self.rows[self.row][self.column - 1]
            self.rows[self.row][self.column - 1] = color, before + char
            return
        for _ in range(width):
            self.rows[self.row][self.column] = self.color, char
            char, self.column = "", self.column + 1

    @property
    def lines(self) -> list[list[tuple[str, str]]]:
        return self.rows[: self.row]


def shown(lines: list[str]) -> list[list[tuple[str, str]]]:
    screen = Screen()
    screen.feed("".join(f"{line}\n" for line in lines))
    return screen.lines


WORDS = st.text(st.sampled_from("ab1 ·█░日本é\u0301"), max_size=12)
COLORED = st.builds(
    lambda color, text: f"\033[{color}m{text}\033[0m" if color else text, st.sampled_from([0, 31, 32]), WORDS
)
LINES = st.lists(st.lists(COLORED, max_size=3).map(lambda parts: fit_line("".join(parts))), max_size=6)


def fit_line(line: str) -> str:
    """A line that is narrower than the screen, with a combining mark only after a character."""
    plain = re.sub(r"\033\[\d+m", "", line)
    return line if display_width(plain) < WIDTH and not plain.startswith("\u0301") else fit(plain, WIDTH - 1).rstrip()


@given(st.lists(LINES, min_size=1, max_size=4))
def test_the_screen_shows_the_latest_lines(states: list[list[str]]) -> None:
    screen, before = Screen(), list[str]()
    for lines in states:
        screen.feed(update(before, lines))
        assert screen.lines == shown(lines)
        assert screen.rows[screen.row :] == [[BLANK] * WIDTH] * (60 - screen.row)
        before = lines


def test_nothing_is_sent_for_what_stays() -> None:
    lines = ["one", "two", "three"]
    assert update(lines, lines) == ""
    assert update(lines, ["one", "two 12s", "three"]) == "\033[2F\033[3C 12s\n\033[1E"
    assert update(["a  1s  x", "b"], ["a  2s  x", "b"]) == "\033[2F\033[3C2\n\033[1E"


def test_a_narrower_terminal_has_wrapped_what_was_drawn() -> None:
    assert erase([], 10) == ""
    assert erase(["x" * 25, "y"], 10) == "\033[4F\033[J"


@pytest.mark.parametrize(
    ("was", "now"), [("日本", "a本"), ("a日", "日a"), ("é\u0301x", "éx"), ("\033[31mab\033[0m", "ab")]
)
def test_no_half_of_a_character_is_left(was: str, now: str) -> None:
    screen = Screen()
    screen.feed(update([], [was]) + update([was], [now]))
    assert screen.lines == shown([now])
