"""Reads captions, and what else is said of a sample, out of the fields of a JSON object or table row."""

import json
from typing import Any

CAPTION_FIELDS = ("captions", "caption", "text")


def parse_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object; ValueError says what is wrong, also for nesting that no honest file has."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object {{...}} is needed, this is a {type(value).__name__}")
    return value


def captions_in(fields: dict[str, Any]) -> list[str]:
    """The captions among `fields`: a string or a list of strings under one of CAPTION_FIELDS; [] if there is none."""
    for name in CAPTION_FIELDS:
        value = fields.get(name)
        if value is None:
            continue
        captions = [value] if isinstance(value, str) else value
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"{name!r} must be a string or a list of strings, this is {str(value)[:60]!r}")
        return captions
    return []


def other_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """All that is neither image nor caption."""
    return {name: value for name, value in fields.items() if name not in (*CAPTION_FIELDS, "image")}
