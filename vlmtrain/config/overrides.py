"""What was typed -> a verb, options, and overrides in one spelling."""

import shlex
import sys
from dataclasses import dataclass, field

from vlmtrain.config.faults import Fault, closest, offer

SWITCHES = ("debug", "follow", "fresh", "help", "wandb-yaml", "yes")
OPTIONS_WITH_VALUE = ("config-dir", "allow")
OPTIONS_OF_VERBS = {"at-once": ("sweep",), "by": ("sweep", "compare"), "html": ("compare",)}
SEVERAL = ("-m", "--multirun")  # several values for a key: a sweep
DEFAULT_VERB = "train"


@dataclass
class Typed:
    """A command line, normalised.  `overrides` are `key=value`, without leading + or --."""

    verb: str = DEFAULT_VERB
    overrides: list[str] = field(default_factory=list)
    switches: set[str] = field(default_factory=set)
    config_dirs: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)  # bare words after a verb that takes them
    options: dict[str, str] = field(default_factory=dict)  # of the verb, without --
    faults: list[Fault] = field(default_factory=list)


def read_arguments(arguments: list[str], verbs: list[str], verbs_with_words: tuple[str, ...] = ()) -> Typed:
    """Accepts `key=value`, `+key=value`, `++key=value`, `--key=value` and `--key value`; a verb may come first."""
    typed = Typed()
    rest = list(arguments)
    if rest and rest[0] in verbs:
        typed.verb = rest.pop(0)
    while rest:
        token = rest.pop(0)
        if token in ("-h", "--help"):
            typed.switches.add("help")
        elif token == "-f":
            typed.switches.add("follow")
        elif token in SEVERAL:
            _ask_for_sweep(token, typed)
        elif token.startswith("--") and token[2:] in SWITCHES:
            typed.switches.add(token[2:])
        elif token.startswith("-"):
            _read_dashed(token, rest, typed)
        elif "=" in token or token.startswith("~"):
            typed.overrides.append(_rename(token.lstrip("+")))
        elif typed.verb in verbs_with_words:
            typed.words.append(token)
        else:
            typed.faults.append(_explain_bare_word(token, verbs))
    typed.faults += _misplaced_options(typed)
    return typed


def typed_command() -> str:
    """The command line as it was typed, without the folder of the program."""
    return shlex.join(["vlmtrain", *sys.argv[1:]])


def _ask_for_sweep(token: str, typed: Typed) -> None:
    if typed.verb in (DEFAULT_VERB, "sweep"):
        typed.verb = "sweep"
    else:
        typed.faults.append(Fault("", f"{token} means nothing to {typed.verb}", "it trains several settings: a sweep"))


def _misplaced_options(typed: Typed) -> list[Fault]:
    verbs = {name: OPTIONS_OF_VERBS[name] for name in typed.options}
    return [
        Fault("", f"--{name} means nothing to {typed.verb}", f"it belongs to {' and '.join(those)}")
        for name, those in verbs.items()
        if typed.verb not in those
    ]


def _read_dashed(token: str, rest: list[str], typed: Typed) -> None:
    """`--key=value` or `--key value`."""
    name, equals, value = token.lstrip("-").partition("=")
    if not equals:
        if not rest or rest[0].startswith("--"):
            known = ", --".join((*SWITCHES, *OPTIONS_WITH_VALUE, *OPTIONS_OF_VERBS))
            remedy = f"write {name}=VALUE, or choose from the options --{known}"
            typed.faults.append(Fault("", f"{token} has no value", remedy))
            return
        value = rest.pop(0)
    if name == "config-dir":
        typed.config_dirs.append(value)
    elif name == "allow":
        typed.allowed.extend(value.split(","))
    elif name in OPTIONS_OF_VERBS:
        typed.options[name] = value
    else:
        typed.overrides.append(_rename(f"{name}={value}"))


def _rename(override: str) -> str:
    """`stages=[language]` chooses stages to run; the key `stages` itself holds what they are."""
    key, _, value = override.partition("=")
    if key not in ("stages", "run_stages"):
        return override
    return f"run_stages={value}" if value.startswith("[") or value == "null" else f"run_stages=[{value}]"


def _explain_bare_word(word: str, verbs: list[str]) -> Fault:
    near = closest(word, verbs)
    if near and "." not in word and "/" not in word:
        return Fault("", f"there is no verb {word!r}", offer(word, verbs, "Verbs"))
    return Fault("", f"{word!r} has no value", f"write {word}=VALUE (verbs are {', '.join(verbs)})")
