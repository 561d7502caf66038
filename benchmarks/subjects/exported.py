"""A file of `tools.export` in its own runtime, in a fresh process: `python -m benchmarks.subjects.exported JSON`.

The suffix of the path decides: .onnx runs in ONNX Runtime, .xml in OpenVINO. Torch only makes the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common.work import Work, made_images, read_work, repeated, report

Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


def onnx_runtime(work: Work) -> tuple[Run, str]:
    """(function, version) of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = work.threads or 0
    cuda = work.device.startswith("cuda")
    providers = ["CUDAExecutionProvider"] if cuda else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(work.path, options, providers=providers)
    return lambda inputs: session.run(None, inputs), onnxruntime.__version__


def openvino(work: Work) -> tuple[Run, str]:
    """(function, version) of OpenVINO."""
    from openvino import Core, get_version

    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if work.threads:
        options["INFERENCE_NUM_THREADS"] = work.threads
    compiled = Core().compile_model(work.path, "CPU", options)
    request = compiled.create_infer_request()
    return lambda inputs: [np.array(value) for value in request.infer(inputs).values()], get_version()


def main() -> None:
    """Do the work of the command line."""
    work = read_work()
    images, mask = (tensor.cpu().numpy() for tensor in made_images(work))
    runtime = openvino if work.path.endswith(".xml") else onnx_runtime
    run, version = runtime(work)
    inputs = {"image": images, "mask": mask}
    seconds = repeated(work, lambda: run(inputs))
    logits, boxes = run(inputs)[:2]
    check = [float(value) for array in (logits, boxes) for value in (np.abs(array).mean(), array.ravel()[-1])]
    report(work, seconds, check, runtime=version)


if __name__ == "__main__":
    main()
