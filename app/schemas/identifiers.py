"""What a person or a gallery may be called."""

import re

PERSON_ID = r"^[A-Za-z0-9][A-Za-z0-9._@:+=-]{0,127}$"
GALLERY = r"^[a-z0-9][a-z0-9_-]{0,62}$"


def is_person_id(value: str) -> bool:
    return re.fullmatch(PERSON_ID, value) is not None
