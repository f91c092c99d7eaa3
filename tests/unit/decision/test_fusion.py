import numpy as np

from app.decision.fusion import mean_templates


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_each_person_gets_the_normalised_mean_of_their_own_faces() -> None:
    rng = np.random.default_rng(0)
    persons = {"a": unit(rng, 1), "b": unit(rng, 3), "c": unit(rng, 2)}
    ids, templates = mean_templates(persons)
    assert ids == ["a", "b", "c"]
    for template, person_id in zip(templates, ids, strict=True):
        mean = persons[person_id].mean(axis=0)
        np.testing.assert_allclose(template, mean / np.linalg.norm(mean), atol=1e-6)


def test_faces_that_cancel_out_still_give_a_direction() -> None:
    face = unit(np.random.default_rng(0), 1)
    _, templates = mean_templates({"a": np.concatenate([face, -face])})
    np.testing.assert_allclose(templates[0], face[0])
