"""docs/reference/settings.md: a heading for each setting, in the sections that comments in `Settings` begin."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.settings import PREFIX, Settings
from scripts.reference.json_schema import limits
from scripts.reference.markdown import linked, paragraphs, table

_SECTION_OR_FIELD = re.compile(r"^    (?:# (?P<section>.+)|(?P<field>\w+): )", re.MULTILINE)
_MIB = 1024 * 1024

_INTRODUCTION = """\
# Settings

The service reads its settings from environment variables when it starts:

```sh
LOOKALIKE_KEYS_FILE=keys.toml LOOKALIKE_MAX_RESULTS=200 lookalike serve images
```

[`lookalike serve`](cli.md#lookalike-serve) has options for some of them. An option overrides the variable. An empty
variable counts as unset. A boolean is `true` or `false`.

An invalid value ends `lookalike serve` with a line that names the variable. A variable that resembles a setting is
logged as a possible misspelling."""


_OTHERS = """\
## Other variables

These are not settings of the service alone. Commands and the service read them.

| variable | effect |
| --- | --- |
| `LOOKALIKE_CACHE` | Folder of converted encoders and of weights that you put there; `~/.cache/lookalike` by default. |
| `HF_HUB_OFFLINE` | `1`: never fetch weights from the hub. |
| `SSL_CERT_FILE` | File of certificate authorities, for images by URL. |
| `OTEL_*` | Configuration of [traces](metrics.md#tracing), such as `OTEL_EXPORTER_OTLP_ENDPOINT`. |"""


def page() -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    for title, names in sections().items():
        rows = [(linked(f"`{_variable(name)}`"), _default(Settings.model_fields[name])) for name in names]
        parts += [f"## {title}", table(("variable", "default"), rows), *map(_setting, names)]
    return "\n\n".join([*parts, _OTHERS]) + "\n"


def sections() -> dict[str, list[str]]:
    """Return the names of the settings by section, in the order of their definition."""
    found: dict[str, list[str]] = {}
    for match in _SECTION_OR_FIELD.finditer(inspect.getsource(Settings)):
        if match["section"]:
            found[match["section"]] = names = []
        elif match["field"] in Settings.model_fields:
            names.append(match["field"])
    return found


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _setting(name: str) -> str:
    field = Settings.model_fields[name]
    facts = [f"Default: {_default(field)}.", f"Values: {values}." if (values := _values(field)) else ""]
    return "\n\n".join([f"### {_variable(name)}", paragraphs(field.description or ""), " ".join(facts).strip()])


def _default(field: FieldInfo) -> str:
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if "default" in extra:  # it depends on the machine
        return str(extra["default"])
    if value in (None, "", ()):
        return "none"
    if isinstance(value, bool | str | Path):
        return f"`{str(value).lower() if isinstance(value, bool) else value}`"
    return _with_unit(value, str(extra.get("unit", "")))


def _with_unit(value: float, unit: str) -> str:
    number = f"{value:g}" if isinstance(value, float) else str(value)
    size = f" ({value / _MIB:g} MiB)" if unit == "bytes" and value else ""
    return f"`{number}` {unit.removesuffix('s') if value == 1 else unit}".strip() + size


def _values(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    bounds = {type(each): each for each in field.metadata}
    low, high, above = (getattr(bounds.get(kind), name, None) for kind, name in ((Ge, "ge"), (Le, "le"), (Gt, "gt")))
    return limits(low, high, above)
