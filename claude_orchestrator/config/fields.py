"""The one table of settings: each one's name, kind, default and help, and the places that may give it.

The options and their help, the readers of the config and its schema, the dry run's list and docs/options.md come from
this table. What a budget profile may hold is declared in `token_budget.fields` and gets its option here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claude_orchestrator.claude.argv import PERMISSION_MODES
from claude_orchestrator.config.approvals import APPROVALS, ApprovalRules
from claude_orchestrator.config.compound_kinds import list_of, names_of
from claude_orchestrator.config.instance_kinds import (
    ENV,
    EXTRA_ARGS,
    MCP,
    MODEL_WHEN_LOW,
    PER_NODE,
    SCHEMA,
    TOOLS,
    WANTS,
    WORKTREE,
)
from claude_orchestrator.config.item_sources import FOR_EACH
from claude_orchestrator.config.kinds import (
    COMMAND_LINE,
    DELAY,
    DURATION,
    FILE,
    FLAG,
    INTEGER,
    LINE,
    MARGIN,
    PERCENT,
    PORT,
    RAW,
    SEED,
    SESSION,
    TEXT,
    WORDS,
)
from claude_orchestrator.config.subagent_limits import SUBAGENT_LIMITS
from token_budget.fields import ACCOUNT, PROFILE_FIELDS, TOKENS, Kind, choice, whole_number
from token_budget.named_tuples import NamedTuple

PROGRAM = "claude-orchestrator"
CONFIG_NAME = f"{PROGRAM}.json"
ENV_PREFIX = "CLAUDE_ORCHESTRATOR"
MAX_RETRIES = 100
WINDOWS = ("daily", "weekly", "monthly")
HOLD_POLICIES = ("off", "pool", "fair")
SHARE_CACHE = ("auto", "off")
METERS = ("auto", "api", "stream")
SHIP = "ship"
CLUSTER_WORKSPACES = ("shared", SHIP)
OUTAGES = ("wait", "continue")
CHARGES = ("bound", "input", "none")
RUN_IF = ("success", "always", "failure")
UNKNOWN_COMMANDS = ("fail", "prompt")
LOG_LEVELS = ("debug", "info", "warning", "error")
DEFAULT_COLUMNS = ("state", "time", "tokens", "cost", "subagents", "turn", "now")
MORE_COLUMNS = ("model", "input", "output", "cache_write", "cache_read", "tools", "budget", "try")

WHAT = "What to run"
BUDGETS = "Budgets"
MONEY = "Budgets in money, which limit estimated costs"
ACROSS = "Across runs"
HOW = "How to run it"
CLUSTER = "On a cluster of Ray"
SINGLE = "The instance of a PROMPT, or the defaults of a config"
OUTPUT = "Output"
PAGE = "A page of the run in a browser"
COMMANDS = "Commands of the workspace"
MOVED = "Options of Zen, which have no effect"


class Setting(NamedTuple):
    """One setting. `name` is its name in code; each other name is empty if that place cannot give the setting.

    `run`: it is a part of Settings, so journals store it. `aliases` are older names of the option and of its keys.
    `no_effect` says why it is accepted without an effect. `bare` is the value of the option if none follows it.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    default_text: str = ""
    option: str = ""
    group: str = ""
    metavar: str = ""
    run: bool = True
    budget: str = ""
    profile: bool = False
    instance: str = ""
    aliases: tuple[str, ...] = ()
    no_effect: str = ""
    bare: str = ""

    @property
    def param(self) -> str:
        """The option's name as an identifier."""
        return self.option.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that gives the option."""
        return f"{ENV_PREFIX}_{self.param.upper()}"

    @property
    def shown_default(self) -> str:
        """The default as help and documentation show it; empty if there is none."""
        if self.default_text or self.default is None or self.default is False:
            return self.default_text
        return f"{self.default:g}" if isinstance(self.default, float) else self.kind.show(self.default)


_PROFILE = {field.key: field for field in PROFILE_FIELDS}


def _budget(key: str, group: str, metavar: str, *, option: str = "", name: str = "") -> Setting:
    """The option of a setting that profiles may hold too."""
    field = _PROFILE[key]
    option = option or key.replace("_", "-")
    return Setting(
        name or option.replace("-", "_"),
        field.kind,
        field.help,
        field.default,
        option=option,
        group=group,
        metavar=metavar,
        budget=key,
        profile=True,
    )


def _only_option(option: str, kind: Kind, text: str, group: str, metavar: str = "", **rest: Any) -> Setting:
    """An option of one invocation: journals do not store it as a setting of the run."""
    return Setting(option.replace("-", "_"), kind, text, option=option, group=group, metavar=metavar, run=False, **rest)


def _no_effect(option: str, kind: Kind, why: str, budget: str = "") -> Setting:
    """An option that is accepted for those who come from Zen."""
    return _only_option(option, kind, "", MOVED, budget=budget, no_effect=why)


def _read_level(value: object) -> Any:
    """A level, which may be typed in capitals, or as Zen calls it."""
    lower = value.lower() if isinstance(value, str) else value
    return _LEVELS.read(_ZEN_LEVELS.get(lower, lower if lower in LOG_LEVELS else value))


COUNT = whole_number(0, 10**6)
_LEVELS = choice(*LOG_LEVELS)
_ZEN_LEVELS: dict[object, str] = {"silent": "error", "concise": "info", "detailed": "debug"}
LOG_LEVEL = _LEVELS._replace(read=_read_level)


SETTINGS: tuple[Setting, ...] = (
    _only_option("config", FILE, f"Run this JSON config instead of {CONFIG_NAME} of the workspace.", WHAT, "FILE"),
    _only_option(
        "workspace", FILE, "The folder that instances run in.", WHAT, "DIR", default=Path(), default_text="here"
    ),
    _only_option(
        "for-each",
        RAW,
        "Run the PROMPT once for each file that matches, or each line of FILE or of standard input, as {{item}}.",
        WHAT,
        "GLOB|@FILE|-",
    ),
    _only_option(
        "limit", whole_number(1, 10**6), "As a trial, use only the first N items of each for_each.", WHAT, "N"
    ),
    _only_option("shuffle", SEED, "Put the items in random order. The same seed gives the same order.", WHAT, "SEED"),
    _only_option("init", FLAG, f"Write a first {CONFIG_NAME} for the workspace, then exit.", WHAT),
    _only_option("resume", RAW, "Continue an earlier run. Completed instances do not run again.", WHAT, "RUN_ID|last"),
    _only_option(
        "apply",
        RAW,
        "Apply the changes from the worktrees of a run to the workspace, either all of them or none.",
        WHAT,
        "RUN_ID|last",
    ),
    _only_option("only", RAW, "With --apply, take the changes of these instances or groups only.", WHAT, "NAME,…"),
    _only_option("rehearse", FLAG, "Run with simulated instances. This costs nothing and needs no claude.", WHAT),
    _only_option("dry-run", FLAG, "Check everything and show what a run would do. Launch nothing.", WHAT),
    _only_option("graph", FILE, "Write the plan's graph as Mermaid (.mmd) or SVG (.svg).", WHAT, "FILE"),
    _only_option("start-at", RAW, "Start later, for example 30m or 2h from now, or at 14:30 or 1am.", WHAT, "WHEN"),
    _budget("overall_budget", BUDGETS, "TOKENS", option="overall-token-budget"),
    _budget("command_budgets", BUDGETS, "/CMD=TOKENS", option="command-budget", name="command_budgets"),
    _budget("enforcement_mode", BUDGETS, "", option="budget-enforcement-mode"),
    Setting(
        "disable_budget_visuals",
        FLAG,
        "Show no bars and no budget panel.",
        False,
        option="disable-budget-visuals",
        group=BUDGETS,
        budget="disable_visuals",
    ),
    _budget("token_weights", BUDGETS, "flat|billing|KEY=W,…"),
    Setting(
        "subagent_token_budget",
        SUBAGENT_LIMITS,
        "What each subagent may use. In block mode its next request is refused then, and its parent continues. "
        "TYPE=TOKENS, depth:N=TOKENS and *=TOKENS limit some of them. Needs the API meter.",
        option="subagent-token-budget",
        group=BUDGETS,
        metavar="TOKENS|KEY=TOKENS,…",
        budget="subagent_token_budget",
        instance="subagent_token_budget",
    ),
    Setting(
        "meter",
        choice(*METERS),
        "Where to count tokens: api counts on the connection to the API and makes budgets hard caps, stream counts in "
        "claude's output, auto uses api if it can and that changes no request.",
        "auto",
        option="meter",
        group=BUDGETS,
    ),
    Setting(
        "charge_unanswered",
        choice(*CHARGES),
        "With --meter api, what a request is charged that gets no complete answer: all that it can cost, its input, or "
        "nothing.",
        None,
        "bound in block mode, none in warn mode",
        option="charge-unanswered",
        group=BUDGETS,
        budget="charge_unanswered",
    ),
    Setting(
        "hold_policy",
        choice(*HOLD_POLICIES),
        "How holds change while instances run: pool lets a hold grow into what is free, fair shares it equally.",
        "pool",
        option="hold-policy",
        group=BUDGETS,
        budget="hold_policy",
        aliases=("adjust",),
    ),
    Setting(
        "stop_margin",
        MARGIN,
        "In block mode, stop this far before each limit. Only runs that count from streams need it.",
        0.0,
        option="stop-margin",
        group=BUDGETS,
        metavar="PERCENT",
        budget="stop_margin",
    ),
    _only_option(
        "budget-profile", RAW, "Use the limits of this profile. token-budget profile manages profiles.", BUDGETS, "NAME"
    ),
    _budget("overall_cost_budget", MONEY, "USD"),
    _budget("command_cost_budgets", MONEY, "/CMD=USD", option="command-cost-budget", name="command_cost_budgets"),
    _budget("daily_cost_budget", MONEY, "USD"),
    _budget("weekly_cost_budget", MONEY, "USD"),
    _budget("monthly_cost_budget", MONEY, "USD"),
    Setting(
        "stop_at_rate_limit",
        PERCENT,
        "Stop the run at this percentage of any rate limit of your subscription.",
        option="stop-at-rate-limit",
        group=MONEY,
        metavar="PERCENT",
    ),
    _only_option(
        "ledger",
        TEXT,
        "The file that records the usage of all runs, or the address of a PostgreSQL database that does.",
        ACROSS,
        "FILE|URL|off",
        default_text="in the user's state directory",
        budget="ledger",
    ),
    Setting(
        "account",
        ACCOUNT,
        "Charge this account. The run keeps to the limits that the ledger has for it.",
        option="account",
        group=ACROSS,
        metavar="NAME",
        budget="account",
    ),
    Setting(
        "ledger_outage",
        choice(*OUTAGES),
        "In block mode with limits of a day, a week, a month or an account: what happens while the ledger cannot be "
        "used. wait starts nothing new, continue starts without it.",
        "wait",
        option="ledger-outage",
        group=ACROSS,
        budget="ledger_outage",
    ),
    _budget("daily_token_budget", ACROSS, "TOKENS"),
    _budget("weekly_token_budget", ACROSS, "TOKENS"),
    _budget("monthly_token_budget", ACROSS, "TOKENS"),
    _budget("alert_at", ACROSS, "PERCENT,…|off"),
    _only_option(
        "alert-command", RAW, "A command that receives each alert as JSON. It runs without a shell.", ACROSS, "CMD"
    ),
    _only_option("alert-webhook", RAW, "A URL that receives each alert as JSON by POST.", ACROSS, "URL"),
    _only_option("alert-ntfy", RAW, "The URL of an ntfy topic that receives each alert.", ACROSS, "URL"),
    _only_option("alert-desktop", FLAG, "Show each alert as a notification of this desktop.", ACROSS),
    Setting(
        "max_parallel",
        whole_number(1, 10**6),
        "How many instances run at once.",
        8,
        option="max-parallel",
        group=HOW,
        metavar="N",
    ),
    Setting(
        "startup_delay_s",
        DELAY,
        "Time between launches.",
        0.0,
        option="startup-delay",
        group=HOW,
        metavar="TIME",
    ),
    Setting(
        "model_when_low",
        MODEL_WHEN_LOW,
        "The model of instances that start when less than this percentage of a budget is left, such as 20%=haiku.",
        option="model-when-low",
        group=BUDGETS,
        metavar="PERCENT=MODEL",
        budget="model_when_low",
    ),
    Setting(
        "share_cache",
        choice(*SHARE_CACHE),
        "Whether instances with the same beginning wait until the first of them has begun to write the prompt cache.",
        "auto",
        option="share-cache",
        group=HOW,
        budget="share_cache",
    ),
    Setting(
        "share_cache_wait_s",
        DELAY,
        "How long an instance waits for the shared prompt cache at most, once the first one's Claude has started.",
        10.0,
        option="share-cache-wait",
        group=HOW,
        metavar="TIME",
        budget="share_cache_wait",
    ),
    Setting(
        "keep_cache_warm",
        FLAG,
        "Make small API requests that keep the shared prompt cache warm while instances wait to start, as long as they "
        "cost less than writing it again. Needs --meter api.",
        False,
        option="keep-cache-warm",
        group=HOW,
        budget="keep_cache_warm",
    ),
    Setting(
        "max_launches_per_hour",
        whole_number(1, 10**6),
        "How many launches an hour may have, in all runs together that share the ledger. Retries count too.",
        option="max-launches-per-hour",
        group=HOW,
        metavar="N",
    ),
    Setting(
        "timeout_s",
        DURATION,
        "Stop an instance after this time.",
        option="timeout",
        group=HOW,
        metavar="TIME",
        instance="timeout_s",
    ),
    Setting(
        "idle_timeout_s",
        DURATION,
        "Stop an instance that has printed nothing for this long.",
        option="idle-timeout",
        group=HOW,
        metavar="TIME",
    ),
    Setting(
        "startup_timeout_s",
        DURATION,
        "Fail an instance that prints nothing at all in this time after its start.",
        120.0,
        option="startup-timeout",
        group=HOW,
        metavar="TIME",
    ),
    Setting(
        "grace_s",
        DELAY,
        "How long an instance may take to end before the program kills it.",
        5.0,
        option="grace",
        group=HOW,
        metavar="TIME",
    ),
    Setting("fail_fast", FLAG, "Stop all instances when one fails.", False, option="fail-fast", group=HOW),
    Setting(
        "fail_on_denied",
        FLAG,
        "Fail an instance that was denied a tool.",
        option="fail-on-denied",
        group=HOW,
        default_text="on if CI is set",
        instance="fail_on_denied",
    ),
    Setting(
        "approvals",
        APPROVALS,
        "What happens to a tool that needs your consent: deny it, or ask you in the terminal and in claude-runs. An "
        "object of rules answers first.",
        ApprovalRules(),
        option="approvals",
        group=HOW,
        metavar="ask|deny",
        instance="approvals",
    ),
    Setting(
        "approval_timeout_s",
        DURATION,
        "Deny a tool that you have not approved after this time.",
        600.0,
        option="approval-timeout",
        group=HOW,
        metavar="TIME",
    ),
    Setting(
        "keep_worktrees",
        FLAG,
        "Also keep worktrees without changes.",
        False,
        option="keep-worktrees",
        group=HOW,
    ),
    Setting(
        "retries",
        whole_number(0, MAX_RETRIES),
        "How often to retry after a temporary failure, such as an overloaded API or a lost connection.",
        0,
        option="retries",
        group=HOW,
        metavar="N",
        instance="retries",
    ),
    Setting(
        "wait_for_reset",
        FLAG,
        "At a rate limit, wait until it resets, then continue.",
        False,
        option="wait-for-reset",
        group=HOW,
    ),
    _only_option("claude-bin", RAW, "The claude program to run.", HOW, "PATH", default_text="claude on PATH"),
    _only_option("no-control", FLAG, "Open no socket, so that claude-runs cannot change the run.", HOW),
    _only_option(
        "cluster",
        LINE,
        "Run instances on the nodes of this Ray cluster: auto for the one that this machine belongs to, local to start "
        "one here, or its address. Needs the extra cluster.",
        CLUSTER,
        "auto|local|HOST:PORT",
    ),
    Setting(
        "instances_per_node",
        PER_NODE,
        "How many instances each node takes: auto computes it from the node's cores and free memory.",
        0,
        option="instances-per-node",
        group=CLUSTER,
        metavar="N|auto",
    ),
    Setting(
        "lease_s",
        DURATION,
        "How long a node may run instances without contact with this machine. Then it ends them.",
        10.0,
        option="lease",
        group=CLUSTER,
        metavar="TIME",
    ),
    Setting(
        "cluster_workspace",
        choice(*CLUSTER_WORKSPACES),
        "How nodes get your repository: shared expects it at the same path on every node. ship sends it with your "
        "uncommitted changes, gives each instance a worktree, and brings back what it changes.",
        "shared",
        option="cluster-workspace",
        group=CLUSTER,
    ),
    Setting(
        "name",
        LINE,
        "The instance's unique name in reports and for budgets.",
        option="instance-name",
        group=SINGLE,
        metavar="NAME",
        run=False,
        instance="name",
    ),
    Setting(
        "description",
        TEXT,
        "A description for people.",
        option="instance-description",
        group=SINGLE,
        metavar="TEXT",
        run=False,
        instance="description",
    ),
    _only_option(
        "session-id",
        SESSION,
        "Continue the session with this id. A name begins a session in the first run and continues it later.",
        SINGLE,
        "ID|NAME",
        instance="session_id",
    ),
    _only_option("clear-history", FLAG, "Send /clear first.", SINGLE, instance="clear_history"),
    _only_option("compact-history", FLAG, "Send /compact first, after /clear.", SINGLE, instance="compact_history"),
    _only_option(
        "permission-mode", choice(*PERMISSION_MODES), "Claude's permission mode.", SINGLE, instance="permission_mode"
    ),
    _only_option("model", LINE, "Claude's model, by name or alias.", SINGLE, "MODEL", instance="model"),
    _only_option(
        "allowed-tools",
        TOOLS,
        "Tools that Claude may use without asking, such as Read,Bash(git log:*).",
        SINGLE,
        "TOOL,…",
        instance="allowed_tools",
    ),
    _only_option(
        "disallowed-tools", TOOLS, "Tools that Claude may not use.", SINGLE, "TOOL,…", instance="disallowed_tools"
    ),
    _only_option(
        "json-schema",
        SCHEMA,
        "A JSON Schema for the answer, or the file that has it, relative to the instance's folder.",
        SINGLE,
        "FILE",
        instance="json_schema",
    ),
    _only_option(
        "unknown-command",
        choice(*UNKNOWN_COMMANDS),
        "What to do with a slash command that Claude lacks: fail before anything is spent, or send it as text.",
        SINGLE,
        instance="unknown_command",
        default_text="fail",
    ),
    Setting(
        "status_report_interval_s",
        DELAY,
        "Time between status reports. 0 turns them off.",
        30.0,
        option="status-report-interval",
        group=OUTPUT,
        metavar="TIME",
    ),
    _only_option(
        "columns",
        names_of(dict.fromkeys((*DEFAULT_COLUMNS, *MORE_COLUMNS))),
        f"The columns of the table of instances. Others are {', '.join(MORE_COLUMNS)}.",
        OUTPUT,
        "NAME,…",
        default=DEFAULT_COLUMNS,
    ),
    _only_option("quiet", FLAG, "Show only errors and the final summary.", OUTPUT),
    _only_option("log-level", LOG_LEVEL, "Which messages to show.", OUTPUT, default="info"),
    _only_option("verbose", FLAG, "The same as --log-level debug.", OUTPUT),
    _only_option("print-results", FLAG, "Print each answer under its name. Messages go to standard error.", OUTPUT),
    _only_option(
        "results", FILE, "Write each result as a line of JSON when its instance ends. - prints it.", OUTPUT, "FILE|-"
    ),
    _only_option("report", FILE, "Write a report of the run as JSON. - prints it.", OUTPUT, "FILE|-"),
    _only_option("junit", FILE, "Write a report of the run as JUnit XML. - prints it.", OUTPUT, "FILE|-"),
    _only_option("summary", FILE, "Write a summary of the run as Markdown. - prints it.", OUTPUT, "FILE|-"),
    _only_option(
        "output-dir",
        FILE,
        "The folder in which each run gets a folder for its journal, logs and answers.",
        OUTPUT,
        "DIR",
        default_text="in the user's state directory",
    ),
    _only_option(
        "dashboard",
        PORT,
        "Show the run on a page that you can open in a browser. Without PORT, any free port. Needs the extra web.",
        PAGE,
        "[PORT]",
        bare="0",
    ),
    _only_option(
        "dashboard-host",
        LINE,
        "The address of this machine that the page is on. Any address but a loopback one needs --dashboard-token-file.",
        PAGE,
        "HOST",
        default="127.0.0.1",
    ),
    _only_option("dashboard-token-file", FILE, "A file with the password for the page.", PAGE, "FILE"),
    _only_option("dashboard-read-only", FLAG, "Let the page show the run, and not change it.", PAGE),
    _only_option(
        "otlp",
        RAW,
        "Report the run to a collector of OpenTelemetry, such as http://localhost:4318. Needs the extra otel.",
        OUTPUT,
        "URL",
    ),
    _only_option("html", FILE, "Write the finished run as one page that opens without a server.", PAGE, "FILE"),
    _only_option("list-commands", FLAG, "List slash commands and skills, then exit.", COMMANDS),
    _only_option("inspect-command", RAW, "Show one of them, then exit.", COMMANDS, "NAME"),
    _no_effect("max-console-lines", COUNT, "the raw output of instances is in their logs"),
    _no_effect("max-line-length", COUNT, "lines are as long as the terminal is wide"),
    _no_effect("output-format", choice("json", "stream-json"), "instances always print stream-json"),
    _no_effect(
        "budget-parameter-type",
        choice("tokens", "cost", "mixed"),
        "limits in tokens and in money apply together",
        budget="budget_type",
    ),
)


def _key(name: str, kind: Kind, text: str, default: Any = None, default_text: str = "") -> Setting:
    """A key of an instance, of its check or of its rehearsal, that is no option."""
    return Setting(name, kind, text, default, default_text, run=False, instance=name)


REHEARSAL = (
    _key("turns", TOKENS, "How many API responses the instance takes."),
    _key("tokens", TOKENS, "How many tokens the instance uses in all."),
    _key("seconds", DURATION, "How long the instance takes."),
    _key("seed", INTEGER, "A seed. The same seed gives the same run."),
)
CHECK = (
    _key(
        "command",
        COMMAND_LINE,
        "The command, which sh -c runs in the instance's folder. Exit code 0 verifies the work.",
    ),
    _key(
        "rounds",
        whole_number(1, 100),
        "How often to check at most. After each failure but the last, Claude gets another turn.",
        3,
    ),
    _key("timeout_s", DURATION, "Stop the command after this time.", 600.0),
)
_COMMAND = _key("command", WORDS, "A slash command with arguments, or a plain prompt.")
INSTANCE: tuple[Setting, ...] = (
    *(setting for setting in SETTINGS if setting.name == "name"),
    _COMMAND,
    _key("prompt", WORDS, "Another name for `command`. If you give both, `command` wins."),
    *(setting for setting in SETTINGS if setting.instance and setting.name != "name"),
    _key("pre_commands", list_of(WORDS), "Prompts to send before the command, in the same session."),
    _key(
        "max_tokens_per_command",
        TOKENS,
        "The tokens that the instance may need. The program holds them at its launch. They are its budget unless "
        "another budget names the instance or its command.",
    ),
    _key("cwd", LINE, "The folder that the instance runs in, relative to the workspace."),
    _key("env", ENV, "Environment variables, added to the orchestrator's own."),
    _key("append_system_prompt", TEXT, "Text added to Claude's system prompt."),
    _key("mcp_config", MCP, "MCP servers, as a file, a list of files, or the object itself."),
    _key("worktree", WORKTREE, "Give the instance its own git worktree: true, or the name of the worktree."),
    _key("race", whole_number(1, 100), "How many attempts to make at once. The first that its check verifies wins."),
    _key("base", LINE, "The commit or branch that the worktree begins with.", default_text="HEAD"),
    _key(
        "node",
        WANTS,
        "Run the instance on a node of the cluster that has these resources, at least in these amounts.",
        (),
    ),
    _key("extra_args", EXTRA_ARGS, "Further arguments for claude, passed unchanged."),
    _key(
        "for_each",
        FOR_EACH,
        "Make one instance of this entry for each item of a list, or of the source that an object names.",
    ),
    _key("depends_on", list_of(LINE), "The instances or groups that have to end first."),
    _key(
        "run_if",
        choice(*RUN_IF),
        "Run if all dependencies completed, in any case, or only if one of them failed.",
        "success",
    ),
    _key("output_format", choice("stream-json"), "Accepted for older configs, and always stream-json."),
)

BUDGET = tuple(setting for setting in SETTINGS if setting.budget)
RUN = tuple(setting for setting in SETTINGS if setting.run)
DEFAULTS = {setting.name: setting.default for setting in RUN}


def by_key(settings: tuple[Setting, ...], place: str) -> dict[str, Setting]:
    """The settings by their keys in that place (`budget` or `instance`), older names included."""
    keys = {getattr(setting, place): setting for setting in settings}
    return keys | {alias: setting for setting in settings for alias in setting.aliases}
