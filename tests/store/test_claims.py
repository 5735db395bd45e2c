import json
import os
import subprocess
import sys
import time

import pytest

from featcache.store import claims
from featcache.store.claims import Claim, Owner, this_process, try_claim


def test_a_claim_is_exclusive_among_live_processes(tmp_path):
    code = (
        "import sys, pathlib, time; from featcache.store.claims import try_claim\n"
        "print(type(try_claim(pathlib.Path(sys.argv[1]))).__name__, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "0.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "Claim"
        owner = try_claim(tmp_path / "0.json")
        assert isinstance(owner, Owner)
        assert owner.pid == other.pid
        other.kill()
        other.wait()
    assert isinstance(try_claim(tmp_path / "0.json"), Claim)


def test_a_released_claim_is_free(tmp_path):
    claim = try_claim(tmp_path / "0.json")
    assert isinstance(claim, Claim)
    claim.release()
    assert not list(tmp_path.iterdir())


def foreign(path, age):
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "1"}))
    moment = time.time() - age
    os.utime(path, (moment, moment))


def test_a_claim_of_another_host_holds_until_it_expires(tmp_path):
    foreign(tmp_path / "0.json", age=claims.EXPIRY_S / 2)
    assert isinstance(try_claim(tmp_path / "0.json"), Owner)
    foreign(tmp_path / "0.json", age=claims.EXPIRY_S * 2)
    assert isinstance(try_claim(tmp_path / "0.json"), Claim)


def test_a_process_id_that_was_used_again_does_not_keep_a_claim(tmp_path):
    me = this_process()
    record = {"host": me.host, "pid": me.pid, "started": "another start time"}
    (tmp_path / "0.json").write_text(json.dumps(record))
    assert isinstance(try_claim(tmp_path / "0.json"), Claim)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}'])
def test_a_damaged_claim_is_taken_over(tmp_path, content):
    (tmp_path / "0.json").write_text(content)
    assert isinstance(try_claim(tmp_path / "0.json"), Claim)
