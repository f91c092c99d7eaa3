"""Which faces are good enough to be what their person is recognised by.

Beyond a threshold a photo that is enrolled makes its person be missed at least twice as often as
other photos do (`python -m tests.benchmarks.bench_quality`; docs/results.md).
"""

from typing import Literal

from app.errors import (
    Blurred,
    ExtremePose,
    LowDetectionScore,
    PoorFace,
    TooBright,
    TooDark,
    TooSmall,
)

Gate = Literal["off", "warn", "enforce"]

# Out of focus, in motion or enlarged: misses are rare above and frequent below.
MIN_SHARPNESS = 5.0
# Below, noise takes the place of light; above begins dark skin: LFW's darkest face has 43.
MIN_BRIGHTNESS = 40.0
# Above, skin clips. LFW's brightest face has 207 and is recognised.
MAX_BRIGHTNESS = 210.0
# Misses have doubled at 40 degrees and grow fast from there.
MAX_YAW_DEGREES = 40.0
# Misses have doubled between 12 and 15 degrees; hardly a photo of the data goes further.
MAX_PITCH_DEGREES = 15.0
# Sees some of what compression does, which the others do not. 99.9 % of LFW's faces have more.
MIN_DETECTION_SCORE = 0.88


def reasons_against(
    *,
    eye_distance_px: float,
    sharpness: float,
    brightness: float,
    yaw_degrees: float,
    pitch_degrees: float,
    detection_score: float,
    min_eye_distance_px: float,
) -> list[PoorFace]:
    """Why a face should not be enrolled.

    Args:
        eye_distance_px, sharpness, brightness, yaw_degrees, pitch_degrees: as in
            `app.vision.quality.Quality`.
        detection_score: 0 to 1.
        min_eye_distance_px: the least that is enough, in pixels.

    Returns:
        One error for every threshold that is not kept, none for a good face. A value equal to
        its threshold is fine.
    """
    reasons: list[PoorFace] = []
    if eye_distance_px < min_eye_distance_px:
        reasons.append(
            TooSmall(
                f"The face has {eye_distance_px:.1f} pixels between the eyes, "
                f"{min_eye_distance_px:g} are needed; send a larger photo."
            )
        )
    if sharpness < MIN_SHARPNESS:
        reasons.append(
            Blurred(
                f"The face has a sharpness of {sharpness:.1f}, {MIN_SHARPNESS:g} is needed; "
                "send a photo that is in focus, not moved and not enlarged."
            )
        )
    if brightness < MIN_BRIGHTNESS:
        reasons.append(
            TooDark(
                f"The face has a brightness of {brightness:.0f} of 255, {MIN_BRIGHTNESS:g} is "
                "needed; send a photo with more light on the face."
            )
        )
    if brightness > MAX_BRIGHTNESS:
        reasons.append(
            TooBright(
                f"The face has a brightness of {brightness:.0f} of 255, at most "
                f"{MAX_BRIGHTNESS:g} is fine; send a photo that is exposed less."
            )
        )
    if abs(yaw_degrees) > MAX_YAW_DEGREES or abs(pitch_degrees) > MAX_PITCH_DEGREES:
        reasons.append(
            ExtremePose(
                f"The face is turned by {abs(yaw_degrees):.0f} degrees to the side and "
                f"{abs(pitch_degrees):.0f} up or down, at most {MAX_YAW_DEGREES:g} and "
                f"{MAX_PITCH_DEGREES:g} are fine; send a photo that looks into the camera."
            )
        )
    if detection_score < MIN_DETECTION_SCORE:
        reasons.append(
            LowDetectionScore(
                f"The face was detected with a score of {detection_score:.2f}, "
                f"{MIN_DETECTION_SCORE:g} is needed; send a clear photo of the whole face, "
                "little compressed."
            )
        )
    return reasons
