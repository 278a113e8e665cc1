"""What tests of the manifests share: the definitions of KubeRay and Kueue, read once."""

import pytest

from tests.k8s.crds import Crds, definitions


@pytest.fixture(scope="session")
def crds() -> Crds:
    """The definitions that custom resources are checked against; skips where there are none."""
    return Crds.load(definitions())
