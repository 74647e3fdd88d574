"""Options by name: from `name=value` text or YAML to the typed keyword arguments of a function, or a refusal."""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from pkgutil import resolve_name as resolve
from typing import Any, TypeVar, get_args, get_type_hints

from smellkit.errors import OptionError

Kind = TypeVar("Kind")


def find(table: dict[str, str], name: str, *, what: str) -> Callable:
    """Import what `table` ("name" -> "module:attribute") holds under `name`; `what` is the word for the error."""
    check([name], table, f"There is no {what}")
    return resolve(table[name])


def check(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse the first of `names` that is not `known`: an OptionError that says `what`, then the name."""
    known = list(known)
    for name in names:
        if name not in known:
            raise OptionError(f"{what} {name!r}", hint=nearest(name, known))


def alike(name: object, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that look like `name`, whatever their capitals."""
    by_key = {one.casefold(): one for one in names}
    return [by_key[key] for key in difflib.get_close_matches(str(name).casefold(), by_key, 3, cutoff=0.5)]


def nearest(name: str, names: Collection[str]) -> str:
    """Words for a hint: the names close to `name`, or all of them."""
    close = alike(name, names)
    return "did you mean " + " or ".join(close) + "?" if close else "one of " + ", ".join(names)


def listed(text: str, known: Collection[str], *, what: str) -> list[str]:
    """The names in `text`, set apart by commas, all of `known` without any; `what` is the word for the error."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    check(names, known, f"There is no {what}")
    return names or list(known)


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """`["epochs=3", "model=lstm"]` as a dict; the part after the first `=` is the value."""
    wrong = [pair for pair in pairs if "=" not in pair or pair.startswith("=")]
    if wrong:
        raise OptionError(f"{wrong[0]!r} is not name=value", hint="for example --set epochs=3")
    return dict(pair.split("=", 1) for pair in pairs)


def accepted(function: Callable) -> dict[str, type]:
    """Names and types of the options of `function` (or a dataclass): every argument with a default."""
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    parameters = inspect.signature(function).parameters.values()
    kinds = {p.name: hints.get(p.name, type(p.default)) for p in parameters if p.default is not p.empty}
    return {name: next(iter(get_args(kind)), kind) for name, kind in kinds.items()}  # `Path | None` is a Path


def task_of(kind: type[Kind], params: Mapping[str, Any]) -> Kind:
    """The task of a run from its `params`, which hold the settings of the training too."""
    return kind(**{name: params[name] for name in accepted(kind) if name in params})


def split(values: dict[str, Any], *functions: Callable) -> list[dict[str, Any]]:
    """Share `values` out between `functions` by name, each value turned into the type that its option has.

    OptionError for a name that no function takes (with the nearest ones) and for a value of another type.
    """
    tables = [accepted(function) for function in functions]
    check(values, [name for table in tables for name in table], "There is no option")
    shares = [[(name, kind) for name, kind in table.items() if name in values] for table in tables]
    return [{name: convert(values[name], kind, name=name) for name, kind in share} for share in shares]


def convert(value: Any, kind: type, *, name: str) -> Any:
    """`value` as `kind` (str, int, float or bool): from text, or as it is when it fits. A list for a str is joined."""
    if kind is str and isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    if kind is bool and str(value).lower() in ("true", "false", "yes", "no", "1", "0"):
        return str(value).lower() in ("true", "yes", "1")
    if kind is not bool and not isinstance(value, bool):
        try:
            converted = kind(value)
            if kind is not int or float(value) == converted:
                return converted
        except (TypeError, ValueError, OverflowError):
            pass
    example = {"int": "3", "float": "0.1", "bool": "true", "str": "text"}.get(kind.__name__, "another value")
    raise OptionError(f"{name}={value!r} is not {kind.__name__}", hint=f"for example {name}={example}")
