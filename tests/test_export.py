"""The ONNX file says what torch says, from rows as they were recorded."""

import json

import numpy as np
import pytest
import torch

from smellkit.odour.export import Recorded, duration, example, odour
from smellkit.odour.smell import SubstanceSmell
from smellkit.odour.windows import REPRESENTATIONS, Protocol
from tests.test_predict import trained  # noqa: F401 - a fixture


@pytest.mark.parametrize("kind", REPRESENTATIONS)
def test_tensors_are_represented_as_arrays_are(kind):
    protocol = Protocol(kind)
    rows = example(protocol, windows=4)
    rows[0] = 0
    rows[1] = 1023
    assert np.allclose(protocol.represent(rows).numpy(), protocol.represent(rows.numpy()), atol=1e-3)


def test_onnx_runtime_agrees_with_torch(trained, tmp_path):  # noqa: F811
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    said = odour(trained, out=tmp_path / "odour.onnx")
    assert "from torch" in said
    session = onnxruntime.InferenceSession(str(tmp_path / "odour.onnx"), providers=["CPUExecutionProvider"])
    smell = SubstanceSmell.load(trained)
    rows = example(smell.protocol, windows=5, seed=3)
    z, p = session.run(None, {"rows": rows.numpy()})
    with torch.no_grad():
        torch_z, torch_p = Recorded(smell).eval()(rows)
    assert np.abs(z - torch_z.numpy()).max() < 1e-4
    assert np.abs(p - torch_p.numpy()).max() < 1e-4
    assert np.allclose(p, smell.probabilities(smell.protocol.represent(rows.numpy())), atol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"])[0] == "smell 0"
    assert duration(session, smell.protocol, rounds=5) < 200  # ms; the figure itself is measured, not tested
