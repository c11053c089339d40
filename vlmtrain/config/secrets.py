"""Values that come from the environment and must not be written down: they stay references until a part is built."""

import os
import re
from typing import Any

SECRET_NAME = re.compile(r"(token|secret|password|passwd|credential|api_?key|access_?key|private_?key)", re.IGNORECASE)
REFERENCE = re.compile(r"\$\{oc\.env:\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:,[^}]*)?\}")


def is_secret(path: str, value: object) -> bool:
    """Whether `value` refers to the environment and its key or its variable sounds like a credential."""
    if not isinstance(value, str):
        return False
    variables = REFERENCE.findall(value)
    return bool(variables) and any(SECRET_NAME.search(name) for name in (*variables, path.rsplit(".", 1)[-1]))


def reveal(value: Any) -> Any:
    """The value with references to the environment replaced.  ValueError names a variable that is not set."""
    if not isinstance(value, str) or not REFERENCE.search(value):
        return value
    missing = [name for name in REFERENCE.findall(value) if name not in os.environ]
    if missing:
        raise ValueError(f"the configuration reads {missing[0]} from the environment, where it is not set")
    return REFERENCE.sub(lambda match: os.environ[match.group(1)], value)
