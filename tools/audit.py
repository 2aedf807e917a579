"""Known faults of the installed packages: python tools/audit.py

Runs pip-audit, which asks the package index for advisories, and fails where there are any. Where
the index cannot be asked, or knows nothing of a package, that is said, and is no failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

OPTIONS = ("--local", "--skip-editable", "--progress-spinner", "off", "--format", "json")


def main() -> None:
    """Print each advisory, and how much could be looked up; exit code 1 with any."""
    command = [sys.executable, "-m", "pip_audit", *OPTIONS]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (run.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        print(f"audit: advisories could not be asked for: {reason}")
        return
    known = [package for package in packages if "skip_reason" not in package]
    found = 0
    for package in known:
        for fault in package["vulns"]:
            fixed = ", ".join(fault["fix_versions"]) or "nothing yet"
            print(f"{package['name']} {package['version']}: {fault['id']}, mended in {fixed}")
            found += 1
    print(f"audit: {found} advisories; {len(known)} of {len(packages)} packages could be looked up")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
