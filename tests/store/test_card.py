"""The dataset card."""

from synthfer.store.card import dataset_card
from tests.store.tables import filled, spec_of


def test_the_card_says_what_is_there(tmp_path):
    import yaml

    dataset = filled(str(tmp_path))
    text = (tmp_path / "README.md").read_text()
    assert text == dataset_card(dataset.spec, dataset.manifest)
    _, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert "synthetic" in matter["tags"]
    for part in ("All images are synthetic", dataset.manifest.manifest_hash, "to be filled in", "0" * 64, "| fear |"):
        assert part in body


def test_the_card_of_real_faces_does_not_say_synthetic(tmp_path):
    spec = spec_of()
    spec.producer["kind"] = "real"
    text = dataset_card(spec, filled(str(tmp_path)).manifest)
    assert "All images are synthetic" not in text
    assert "- synthetic" not in text
    assert "real people" in text
