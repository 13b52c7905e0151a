from __future__ import annotations

import pytest

from stillhouse.reasons import LONGEST, check_reason
from stillhouse.schemas.errors import InputError


def test_a_reason_is_refused_from_one_character_too_many() -> None:
    check_reason("r" * LONGEST, code="x.long_reason", remedy="Shorten it.")
    with pytest.raises(InputError) as refused:
        check_reason("r" * (LONGEST + 1), code="x.long_reason", remedy="Shorten it.")
    assert (refused.value.code, refused.value.remedy) == ("x.long_reason", "Shorten it.")
