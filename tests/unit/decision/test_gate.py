import pytest

from app.decision import gate
from app.decision.gate import reasons_against

GOOD = {
    "eye_distance_px": 40.0,
    "sharpness": 30.0,
    "brightness": 120.0,
    "yaw_degrees": 3.0,
    "pitch_degrees": -4.0,
    "detection_score": 0.93,
    "min_eye_distance_px": 14.0,
}


def test_nothing_speaks_against_a_good_face() -> None:
    assert reasons_against(**GOOD) == []


@pytest.mark.parametrize(
    ("measures", "code"),
    [
        ({"eye_distance_px": 13.9}, "too_small"),
        ({"min_eye_distance_px": 41}, "too_small"),
        ({"sharpness": 1.2}, "blurred"),
        ({"brightness": 12}, "too_dark"),
        ({"brightness": 240}, "too_bright"),
        ({"yaw_degrees": 52}, "extreme_pose"),
        ({"yaw_degrees": -52}, "extreme_pose"),
        ({"pitch_degrees": 31}, "extreme_pose"),
        ({"pitch_degrees": -31}, "extreme_pose"),
        ({"detection_score": 0.7}, "low_detection_score"),
    ],
)
def test_each_reason_names_what_was_measured_and_what_is_needed(
    measures: dict[str, float], code: str
) -> None:
    (reason,) = reasons_against(**GOOD | measures)
    assert reason.code == code
    (value,) = measures.values()
    if "min_eye_distance_px" not in measures:
        assert f"{abs(value):g}" in reason.detail
    assert "; send a" in reason.detail


def test_a_value_equal_to_its_threshold_is_fine() -> None:
    lowest = {
        "eye_distance_px": 14.0,
        "sharpness": gate.MIN_SHARPNESS,
        "brightness": gate.MIN_BRIGHTNESS,
        "yaw_degrees": -gate.MAX_YAW_DEGREES,
        "pitch_degrees": gate.MAX_PITCH_DEGREES,
        "detection_score": gate.MIN_DETECTION_SCORE,
    }
    assert reasons_against(**GOOD | lowest) == []
    assert reasons_against(**GOOD | {"brightness": gate.MAX_BRIGHTNESS}) == []


def test_all_reasons_are_given() -> None:
    poor = {"eye_distance_px": 9.0, "sharpness": 0.4, "brightness": 15.0, "detection_score": 0.7}
    codes = [reason.code for reason in reasons_against(**GOOD | poor)]
    assert codes == ["too_small", "blurred", "too_dark", "low_detection_score"]
