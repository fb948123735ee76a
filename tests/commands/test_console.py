"""How commands start: the threads' policy is set, and nothing heavy loaded, before they run."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Prints the policy, and whether torch was loaded by then.
START = """
import os, sys
from geometry_fusion.commands.console import parse, run_script
def main():
    args = parse("ab", ["--sample", "twins", "--point", "1,2"])
    print(os.environ.get("OMP_WAIT_POLICY"), args.point, "torch" in sys.modules)
sys.exit(run_script(main))
"""


@pytest.mark.parametrize("given, wanted", [(None, "passive"), ("active", "active")])
def test_idle_threads_sleep_unless_the_user_chose(given, wanted):
    environment = {name: v for name, v in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    done = subprocess.run(
        [sys.executable, "-c", START], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == f"{wanted} [(1, (1.0, 2.0))] False", done.stderr
