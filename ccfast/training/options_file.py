"""Options in YAML: any file gives either options or one error message, quickly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ccfast._errors import InputError

#: A file of options has a few kilobytes; reading another file (/dev/zero, a data set) stops at this size.
LARGEST = 1 << 20

#: Largest depth of nested lists and objects; options are not nested, which further checks verify.
DEEPEST = 10


def read_yaml(path: Path) -> Any:
    """The content of the YAML file ``path``, nested at most :data:`DEEPEST` deep and without aliases.

    Raises:
        InputError: it cannot be read, is not YAML, or has an option twice.
        FileNotFoundError: it does not exist.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise InputError(f"{path}: cannot be read: larger than {LARGEST >> 20} MiB, too large for a file of options")
    try:
        text = content.decode("utf-8-sig")
        _check_structure(text)
        return yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read: not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1}: " if mark is not None else ""
        raise InputError(f"{path}: cannot be read: {at}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date such as 2026-99-99, a number of 5,000 digits
        raise InputError(f"{path}: cannot be read: {str(error).partition(chr(10))[0]}") from error


def _check_structure(text: str) -> None:
    """Refuse YAML that takes very long or a deep recursion to build, and keys that would be lost silently."""
    depth = 0
    seen: dict[str, int] = {}
    is_key = True
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line}: an alias (*{event.anchor[:40]}) where a value is expected")
        if depth == 1:  # a key of the options, or its value
            if is_key and isinstance(event, yaml.ScalarEvent):
                if event.value in seen:
                    raise ValueError(f"line {line}: {event.value[:40]!r} is already in line {seen[event.value]}")
                seen[event.value] = line
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
                is_key = not is_key
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise ValueError(f"line {line}: nested too deep for options")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
