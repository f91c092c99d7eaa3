"""Is there room in a gallery, or for another one?"""

from app.errors import GalleryFull, PersonNotFound, TooManyGalleries
from app.settings import LimitSettings
from app.store import Store


async def check_capacity(
    store: Store, gallery: str, person_id: str, new_faces: int, limits: LimitSettings
) -> None:
    """Before the photos are looked at. Enrolments that run at the same time can each find room
    for themselves, so a gallery may exceed its limits by what is in flight.

    Raises:
        GalleryFull: with so many more faces, or with this person.
        TooManyGalleries: as in `check_gallery`.
        StoreUnavailable.
    """
    size = await store.size(gallery)
    if size.persons == 0:
        await check_gallery(store, gallery, limits)
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


async def check_gallery(store: Store, gallery: str, limits: LimitSettings) -> None:
    """Before something is stored in a gallery that may not be there yet.

    Raises:
        TooManyGalleries: it is not, and there are as many as may be.
        StoreUnavailable.
    """
    names = await store.gallery_names()
    if gallery not in names and len(names) >= limits.max_galleries:
        raise TooManyGalleries(
            f"There is no gallery {gallery!r}, and {len(names)} are there; {limits.max_galleries} "
            "are allowed. Use one of these, or empty one: it goes with the next purge."
        )
