"""The kill harness on trainers of a few lines: one that goes on rightly, and one that does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Adds numbers up, remembers after each where it stands, and takes its time about it.
TRAINER = """
import hashlib, json, pathlib, sys, time
out, resume = pathlib.Path(sys.argv[1]), "--resume" in sys.argv
out.mkdir(parents=True, exist_ok=True)
note = out / "state.json"
at, total = json.loads(note.read_text()) if resume and note.exists() else (0, 0)
while at < 40:
    total += at * at
    at += 1
    fresh = out / "state.tmp"
    fresh.write_text(json.dumps([at, total]))
    time.sleep(0.02)
    KEEP
print(json.dumps({"digest": hashlib.sha256(str(total).encode()).hexdigest()}))
"""
RIGHT = "fresh.rename(note)"
# A row is lost at every resume: the position is kept, the sum of the step before it.
WRONG = "fresh.write_text(json.dumps([at, total - (at - 1) ** 2])); fresh.rename(note)"


@pytest.mark.parametrize(("keep", "same"), [(RIGHT, True), (WRONG, False)])
def test_a_trainer_that_goes_on_wrongly_is_found_out(tmp_path: Path, keep: str, same: bool) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER.replace("KEEP", keep))
    harness = Path(__file__).with_name("kill.py")
    options = [
        "--kills",
        "4",
        "--key",
        "digest",
        "--after",
        "0.1",
        "--within",
        "0.5",
        "--seed",
        "3",
    ]
    during = ["--during", "{out}/state.tmp"]
    command = [sys.executable, str(tmp_path / "trainer.py"), "{out}"]
    done = subprocess.run(
        [sys.executable, str(harness), *options, *during, "--", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == (0 if same else 1), done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["same"] is same
    assert found["kills"] >= 2
    assert len(found["moments"]) == found["kills"]
    assert all(moment["after_s"] >= 0.1 for moment in found["moments"])
    assert found["during_a_write"] >= 1


def test_a_kill_after_the_end_finds_the_result(tmp_path: Path) -> None:
    """The run is over, with its result written, and its process lives on when the kill comes."""
    script = (
        "import json, pathlib, sys, time\n"
        "out = pathlib.Path(sys.argv[1])\n"
        "again = '--resume' in sys.argv\n"
        "sys.exit('over already') if again else out.mkdir(parents=True)\n"
        "(out / 'result.json').write_text(json.dumps({'digest': 7}))\n"
        "time.sleep(20 if out.name == 'killed' else 0)\n"
        "print(json.dumps({'digest': 7}))\n"
    )
    (tmp_path / "trainer.py").write_text(script)
    words = ["--kills", "2", "--key", "digest", "--within", "4", "--folder", str(tmp_path)]
    watched = ["--during", "{out}/nothing", "--finished", "{out}/result.json", "--seed", "5"]
    command = [sys.executable, str(tmp_path / "trainer.py"), "{out}"]
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("kill.py")),
            *words,
            *watched,
            "--",
            *command,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "over at kill 1" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["same"] is True


def test_a_trainer_that_fails_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kill.py")), "--", "false", "{out}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    assert "exit code 1: false" in done.stderr
