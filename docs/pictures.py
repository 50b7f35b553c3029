"""Make the pictures of the tutorial from its own blocks: ``make pictures``."""

import os
import re
import shutil
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent


def main() -> None:
    """Run the page in a folder of its own, and keep the last picture of each key."""
    code = "".join(re.findall(r"^```python\n(.*?)^```$", (DOCS / "tutorial.md").read_text(), re.S | re.M))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        exec(compile(code, "tutorial.md", "exec"), {"__name__": "page"})
        for name in ("confusion", "recall", "loss"):
            pictures = Path(folder, "digits", "figures", "val", name).glob("*.png")
            last = max(pictures, key=lambda path: int(path.stem))
            shutil.copy(last, DOCS / "img" / f"tutorial-{name}.png")
        os.chdir(DOCS)


if __name__ == "__main__":
    main()
