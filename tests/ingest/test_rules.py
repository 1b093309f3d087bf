"""The built-in rules: each catches its own examples."""

import pytest

from ingest.classify import BUILT_IN, Rule


@pytest.mark.parametrize("rule", list(BUILT_IN), ids=lambda rule: rule.id)
def test_a_rule_catches_its_examples(rule: Rule) -> None:
    BUILT_IN.try_examples(rule)
