import numpy as np

from app.decision.fusion import template


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_template_is_the_normalised_mean() -> None:
    faces = unit(np.random.default_rng(0), 3)
    mean = faces.mean(axis=0)
    np.testing.assert_allclose(template(faces), mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(template(faces[:1]), faces[0], atol=1e-6)
    assert template(faces).dtype == np.float32


def test_faces_that_cancel_out_still_give_a_direction() -> None:
    face = unit(np.random.default_rng(0), 1)
    np.testing.assert_array_equal(template(np.concatenate([face, -face])), face[0])
