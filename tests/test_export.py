"""The ONNX file says what torch says, from rows as they were recorded."""

import json

import numpy as np
import pytest
import torch

from smellkit import checkpoint, export
from smellkit.errors import WeightsError
from smellkit.odour.export import Recorded, example, odour
from smellkit.odour.smell import SubstanceSmell
from smellkit.odour.windows import REPRESENTATIONS, Protocol


@pytest.mark.parametrize("kind", REPRESENTATIONS)
def test_tensors_are_represented_as_arrays_are(kind):
    protocol = Protocol(kind)
    rows = example(protocol, windows=4)
    rows[0] = 0
    rows[1] = 1023
    assert np.allclose(protocol.represent(rows).numpy(), protocol.represent(rows.numpy()), atol=1e-3)


def test_onnx_runtime_agrees_with_torch(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    said = odour(checkpoint.find("odour"), out=tmp_path / "odour.onnx")
    assert "agrees with torch on 31 windows" in said
    session = onnxruntime.InferenceSession(str(tmp_path / "odour.onnx"), providers=["CPUExecutionProvider"])
    smell = SubstanceSmell.load(checkpoint.find("odour"))
    rows = example(smell.protocol, windows=5, seed=3)
    z, p = session.run(None, {"rows": rows.numpy()})
    with torch.no_grad():
        torch_z, torch_p = Recorded(smell).eval()(rows)
    assert np.abs(z - torch_z.numpy()).max() < 1e-4
    assert np.abs(p - torch_p.numpy()).max() < 1e-4
    assert np.allclose(p, smell.probabilities(smell.protocol.represent(rows.numpy())), atol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"])[0] == "allspice"


def test_a_file_that_disagrees_with_torch_gets_no_name(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")

    class Unsteady(torch.nn.Module):
        times = 0

        def forward(self, rows):
            self.times += 1
            return (rows + self.times,)

    with pytest.raises(WeightsError, match="does not agree with torch"):
        export.onnx(Unsteady(), tmp_path / "a.onnx", examples=[(torch.ones(2),)], inputs=["x"], outputs=["y"], each="x")
    assert not list(tmp_path.iterdir())
