"""Writes the addresses of both packages from the one that CITATION.cff states as `repository-code`.

Run it in the project's folder after that line has changed. Without the line, it removes the addresses.
"""

import re
from pathlib import Path

PROJECTS = ("pyproject.toml", "dcn_study/pyproject.toml")
TABLE = re.compile(r"\[project\.urls\]\n(?:[^\[\n].*\n)*\n")


def urls(citation: str) -> str:
    """Returns the table `[project.urls]` that belongs to a citation file; empty if this states no address."""
    found = re.search(r'^repository-code: *"?([^"\s]+)"?$', citation, re.MULTILINE)
    if found is None:
        return ""
    address = found[1].rstrip("/")
    lines = {
        "Repository": address,
        "Issues": f"{address}/issues",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
    }
    return "[project.urls]\n" + "".join(f'{name} = "{url}"\n' for name, url in lines.items()) + "\n"


def main() -> None:
    table = urls(Path("CITATION.cff").read_text(encoding="utf-8"))
    for name in PROJECTS:
        path = Path(name)
        text = TABLE.sub("", path.read_text(encoding="utf-8"))
        before = "[project.optional-dependencies]\n"
        if before not in text:
            raise SystemExit(f"{name} must have the table {before.strip()}")
        path.write_text(text.replace(before, table + before), encoding="utf-8")


if __name__ == "__main__":
    main()
