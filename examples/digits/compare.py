"""Run converted files without the architecture's code and compare them with the trained network.

    python examples/digits/compare.py test-set.npz digits.onnx digits.pt

Needs numpy, onnxruntime and torch.jit; nothing of Recast and nothing of the network's source.
"""

import sys
import warnings

import numpy as np
import onnxruntime
import torch


def run_onnx(path: str, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def run_torchscript(path: str, images: np.ndarray) -> np.ndarray:
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch calls TorchScript deprecated at every load
    with torch.inference_mode():
        return torch.jit.load(path)(torch.from_numpy(images)).numpy()


def main() -> int:
    test_set = np.load(sys.argv[1])
    images, labels, expected = test_set["images"], test_set["labels"], test_set["logits"]
    scale = float(np.abs(expected).max())
    print(f"    {'runs in':<14}{'accuracy':>10}{'max difference':>18}{'relative':>12}")
    print(f"    {'eager PyTorch':<14}{(expected.argmax(1) == labels).mean():>10.2%}{'':>18}{'':>12}")
    agreed = True
    for path in sys.argv[2:]:
        name, run = ("onnxruntime", run_onnx) if path.endswith(".onnx") else ("torch.jit", run_torchscript)
        logits = run(path, images)
        difference = float(np.abs(logits - expected).max())
        agreed &= difference < 1e-4 * scale
        accuracy = (logits.argmax(1) == labels).mean()
        print(f"    {name:<14}{accuracy:>10.2%}{difference:>18.2e}{difference / scale:>12.1e}")
    return 0 if agreed else 1


if __name__ == "__main__":
    raise SystemExit(main())
