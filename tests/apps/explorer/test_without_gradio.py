from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
WITHOUT = "import sys; sys.modules['gradio'] = None\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT + code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_every_module_can_be_imported() -> None:
    modules = ("_figures", "_guard", "_handlers", "_options", "_page", "_questions", "_server")
    done = run("\n".join(f"import captum_groupcam.apps.explorer.{module}" for module in modules))
    assert done.returncode == 0, done.stderr


def test_the_command_says_what_to_install() -> None:
    done = run("from captum_groupcam.apps.cli import app; app(['explore'])")
    assert done.returncode == 2
    assert "pip install 'captum_groupcam[explorer]'" in done.stderr
    assert "Traceback" not in done.stderr
