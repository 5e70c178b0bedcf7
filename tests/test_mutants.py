"""The list of named mutants fits the scripts, and random mutants are programs that differ from them."""

import ast

from tests import mutants


def test_every_named_mutant_breaks_a_line_of_its_script(script):
    broken = list(mutants.named_mutants(script))
    original = (mutants.ROOT / mutants.path_of(script)).read_text()
    assert len(broken) >= 10
    for mutant in broken:
        ast.parse(mutant.source)
        assert len(mutant.source.splitlines()) >= len(original.splitlines())
        assert mutant.source != original, mutant.name


def test_random_mutants_differ_from_the_script_and_come_from_their_seed(script):
    broken = mutants.random_mutants(script, 20, seed=0)
    original = ast.unparse(ast.parse((mutants.ROOT / mutants.path_of(script)).read_text()))
    assert len({mutant.source for mutant in broken} | {original}) == 21
    assert broken == mutants.random_mutants(script, 20, seed=0)
    assert broken != mutants.random_mutants(script, 20, seed=1)


def test_each_script_is_tested_by_its_own_tests_first():
    tests = mutants.tests_by_script(("dqn", "ppo"))
    assert tests["dqn"][0].startswith("tests/test_dqn.py") and tests["ppo"][0].startswith("tests/test_ppo.py")
    assert not any("[double_dqn" in test for test in tests["dqn"] if "test_double_dqn" not in test)
