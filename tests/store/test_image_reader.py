"""Random access to images: the right file, none for a failed row, and no other sample in its stead."""

import pytest

from synthfer.sample import SCHEMA
from synthfer.store.image_reader import ImageReader, SampleRef
from tests.store.tables import filled, ids_of, spec_of


@pytest.mark.parametrize("max_bytes", [1, 2**30])
def test_each_sample_gets_its_own_file(tmp_path, max_bytes):
    datasets = [filled(str(tmp_path / name), spec_of(seed=seed)) for seed, name in enumerate("ab")]
    stored = [row["image"] for batch in datasets[1].scan(SCHEMA.names) for row in batch.to_pylist()]
    reader = ImageReader([dataset.uri for dataset in datasets], max_bytes)
    refs = [SampleRef(1, row // 6, row % 6, ids_of([row])[0]) for row in (14, 0, 7, 3)]
    assert reader.read(refs) == {ref: (stored[6 * ref.unit + ref.row] or {}).get("bytes") for ref in refs}
    assert reader.read([refs[0]]) == {refs[0]: None}  # a failed row has no image
    assert len(reader._shards) == (1 if max_bytes == 1 else 3)


def test_another_sample_in_its_stead_is_refused(tmp_path):
    reader = ImageReader([filled(str(tmp_path)).uri])
    with pytest.raises(ValueError, match=r"holds other samples than when the plan was made \(unit 1, row 2\)"):
        reader.read([SampleRef(0, 1, 2, ids_of([9])[0])])
    with pytest.raises(ValueError, match="holds other samples"):
        reader.read([SampleRef(0, 2, 3, ids_of([15])[0])])
