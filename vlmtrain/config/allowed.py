"""Whose code a configuration may name.  Said on the command line or in the environment, never in a configuration."""

import os
import sys

ALLOW_VARIABLE = "VLMTRAIN_ALLOW"
OWN_PACKAGE = "vlmtrain"
NO_PARTS = ("vlmtrain.main", "vlmtrain.run", "vlmtrain.config", "vlmtrain.launch")  # they start things


def allowed_packages() -> tuple[str, ...]:
    """vlmtrain itself and what `--allow` or VLMTRAIN_ALLOW (comma-separated) added."""
    added = os.environ.get(ALLOW_VARIABLE, "").split(",")
    return (OWN_PACKAGE, *(package.strip() for package in added if package.strip()))


def allow(packages: list[str]) -> None:
    """Adds to the allow-list of this process and of every process it starts."""
    for package in packages:
        if not all(part.isidentifier() for part in package.split(".")):
            raise ValueError(f"--allow {package}: name a Python package, for example --allow mypackage")
    os.environ[ALLOW_VARIABLE] = ",".join(dict.fromkeys([*allowed_packages()[1:], *packages]))
    reach_working_folder()


def reach_working_folder() -> None:
    """Lets an allowed package lie in the working folder; last in line, so that it shadows nothing installed."""
    if len(allowed_packages()) > 1 and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def is_allowed(target: str) -> bool:
    """Whether `target` lies inside an allowed package (not whether it is defined there: see signatures)."""
    if any(target == module or target.startswith(f"{module}.") for module in NO_PARTS):
        return False
    return any(target.startswith(f"{package}.") for package in allowed_packages())
