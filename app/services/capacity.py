"""Is there room in a gallery?"""

from app.errors import GalleryFull, PersonNotFound
from app.settings import LimitSettings
from app.store import Store


async def check_capacity(
    store: Store, gallery: str, person_id: str, new_faces: int, limits: LimitSettings
) -> None:
    """Before the photos are looked at. Enrolments that run at the same time can each find room
    for themselves, so a gallery may exceed its limits by what is in flight.

    Raises:
        GalleryFull: with so many more faces, or with this person.
        StoreUnavailable.
    """
    size = await store.size(gallery)
    if size.faces + new_faces > limits.max_faces_per_gallery:
        raise GalleryFull(
            f"Gallery {gallery!r} has {size.faces} faces; {limits.max_faces_per_gallery} are "
            "allowed. Delete some, or use another gallery."
        )
    if size.persons < limits.max_persons_per_gallery:
        return
    try:
        await store.person(gallery, person_id)
    except PersonNotFound:
        raise GalleryFull(
            f"Gallery {gallery!r} has {size.persons} persons; {limits.max_persons_per_gallery} "
            "are allowed. Delete some, or use another gallery."
        ) from None
