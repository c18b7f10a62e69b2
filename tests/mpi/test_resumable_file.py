"""Law: what rank 0 finds wrong with the file is an error on all ranks; none waits for it."""

import json
import re

import pytest

ERRORS = {
    "whole": "no error 3",
    "other": "ValueError: .*layers=6, but this one has layers=9",
    "full": "OSError: .*was not saved .No space left on device.; give another folder",
    "rule": "TypeError: a checkpoint got optimizer.param_groups.0.rule of type builtin_func",
    "damaged": "ValueError: .*run.pt cannot be read: it is damaged",
    "folder": "ValueError: .*folder cannot be read: it is not an ordinary file",
    "moments": "ValueError: .*keeps 'exp_avg' of parameter 0, .* nor of shape .6, 2, 2.",
}


@pytest.mark.mpi
def test_faults_of_the_file_are_errors_on_all_ranks(mpiexec, tmp_path):
    told = json.loads(mpiexec("resumable_file.py", 2, str(tmp_path)))
    assert told.keys() == ERRORS.keys()
    for name, errors in told.items():
        assert len(errors) == 2 and errors[0] == errors[1]
        assert re.match(ERRORS[name], errors[0])
