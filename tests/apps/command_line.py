"""How the tests call the command line."""

from __future__ import annotations

from typer.testing import CliRunner

from captum_groupcam.apps.cli import app


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def explain(*arguments: object):
    few = () if "--method" in arguments else ("--method", "group_cam:n_groups=4")
    return run("explain", *few, *arguments)
