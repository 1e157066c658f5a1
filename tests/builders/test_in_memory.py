"""A model in memory is taken as it is, or refused with a reason."""

from __future__ import annotations

import pytest
import torch

from ditto.builders import InMemory
from ditto.errors import ConfigError


def test_a_module_without_data_is_refused():
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="parameter `weight` has no data"):
        InMemory(module).load(torch.float32)


def test_a_module_without_configuration_says_so():
    with pytest.raises(ConfigError, match="Linear has no `config`"):
        _ = InMemory(torch.nn.Linear(2, 2)).config
