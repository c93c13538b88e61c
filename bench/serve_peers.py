#!/usr/bin/env python3
"""Servers of the perceptron 784-256-128-10, as peers of `varscope serve`: they answer the same requests, of the Open Inference
Protocol, at /v2/models/m/infer. Values are random: what they cost does not depend on them.

  bench/serve_peers.py fastapi|fastapi-numpy|mlserver|triton [--check]

A server says "listening on http://127.0.0.1:PORT" and answers until it is killed. --check only looks whether Python has what it
needs: code 77 and a line that says what is missing where it has not. Nothing of varscope needs this file.
"""
import argparse
import importlib
import importlib.util
import os
import signal
import socket
import sys
import tempfile

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

WIDTHS = (784, 256, 128, 10)
NEEDS = {
    "fastapi": ("fastapi", "uvicorn", "torch"),
    "fastapi-numpy": ("fastapi", "uvicorn", "numpy"),
    "mlserver": ("mlserver", "numpy"),
    "triton": ("pytriton", "numpy"),
}
PACKAGES = {"torch": "PyTorch", "pytriton": "nvidia-pytriton"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def say(port):
    print(f"listening on http://127.0.0.1:{port}", flush=True)


def numpy_model():
    """[n, 784] float32 -> probabilities [n, 10]."""
    import numpy as np
    rng = np.random.default_rng(1)
    layers = [(rng.normal(0, 0.05, (i, o)).astype(np.float32), np.zeros(o, np.float32)) for i, o in zip(WIDTHS, WIDTHS[1:])]

    def answer(x):
        for k, (w, b) in enumerate(layers):
            x = x @ w + b
            if k + 1 < len(layers):
                x = np.maximum(x, 0)
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
    return answer


def torch_model():
    """The same, in PyTorch; takes and gives lists of numbers."""
    import torch
    torch.set_num_threads(1)
    layers = []
    for i, o in zip(WIDTHS, WIDTHS[1:]):
        layers += [torch.nn.Linear(i, o), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1], torch.nn.Softmax(dim=1)).eval()

    def answer(numbers):
        with torch.inference_mode():
            return model(torch.tensor(numbers, dtype=torch.float32).reshape(-1, WIDTHS[0])).flatten().tolist()
    return answer


def serve_fastapi(with_torch):
    import fastapi
    import uvicorn
    if with_torch:
        answer = torch_model()
    else:
        import numpy as np
        of_rows = numpy_model()

        def answer(numbers):
            return of_rows(np.asarray(numbers, np.float32).reshape(-1, WIDTHS[0])).ravel().tolist()
    app = fastapi.FastAPI()

    @app.get("/v2/models/m/ready")
    async def ready():
        return {"name": "m", "ready": True}

    @app.post("/v2/models/m/infer")
    async def infer(request: fastapi.Request):
        data = answer((await request.json())["inputs"][0]["data"])
        return {"model_name": "m", "outputs": [{"name": "probabilities", "datatype": "FP32",
                                                "shape": [len(data) // WIDTHS[-1], WIDTHS[-1]], "data": data}]}
    port = free_port()
    say(port)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def serve_mlserver():
    import asyncio

    import mlserver
    import numpy as np
    from mlserver import types
    of_rows = numpy_model()

    class Perceptron(mlserver.MLModel):
        async def load(self):
            return True

        async def predict(self, payload):
            x = np.asarray(payload.inputs[0].data.root, np.float32).reshape(-1, WIDTHS[0])
            p = of_rows(x)
            out = types.ResponseOutput(name="probabilities", datatype="FP32", shape=list(p.shape), data=p.ravel().tolist())
            return types.InferenceResponse(model_name="m", outputs=[out])

    # It looks the class up again by the name of its module, and has no use for a program's.
    Perceptron.__module__, Perceptron.__qualname__ = "varscope_peer", "Perceptron"
    sys.modules["varscope_peer"] = type(sys)("varscope_peer")
    sys.modules["varscope_peer"].Perceptron = Perceptron

    async def run(port):
        settings = mlserver.Settings(host="127.0.0.1", http_port=port, grpc_port=free_port(), metrics_port=free_port(),
                                     parallel_workers=0, debug=False, load_models_at_startup=False)
        server = mlserver.MLServer(settings)
        model = mlserver.ModelSettings(name="m", implementation=Perceptron)
        say(port)
        await server.start([model])
    asyncio.run(run(free_port()))


def serve_triton():
    import numpy as np
    from pytriton.decorators import batch
    from pytriton.model_config import ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig
    of_rows = numpy_model()

    @batch
    def infer(x):
        return {"probabilities": of_rows(x.reshape(-1, WIDTHS[0]))}
    port = free_port()
    config = TritonConfig(http_port=port, http_address="127.0.0.1", allow_grpc=False, allow_metrics=False, log_verbose=0)
    with tempfile.TemporaryDirectory() as workspace, Triton(config=config, workspace=os.path.join(workspace, "w")) as triton:
        triton.bind(model_name="m", infer_func=infer, inputs=[Tensor(name="x", dtype=np.float32, shape=(28, 28))],
                    outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(WIDTHS[-1],))],
                    config=ModelConfig(max_batch_size=64))
        triton.run()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # its processes end with it
        say(port)
        signal.pause()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=sorted(NEEDS))
    parser.add_argument("--check", action="store_true", help="whether Python has what it needs")
    options = parser.parse_args()
    missing = [n for n in NEEDS[options.server] if importlib.util.find_spec(n) is None]
    if missing:
        print(", ".join(PACKAGES.get(n, n) for n in missing) + (" is" if len(missing) == 1 else " are") + " not installed")
        return 77
    if options.check:
        for name in NEEDS[options.server]:
            try:
                importlib.import_module(name)
            except Exception as e:  # whatever a package that does not fit its neighbours says
                print(f"{name} cannot be imported: {str(e).strip().splitlines()[0]}")
                return 77
        return 0
    if options.server.startswith("fastapi"):
        serve_fastapi(options.server == "fastapi")
    elif options.server == "mlserver":
        serve_mlserver()
    else:
        serve_triton()
    return 0


if __name__ == "__main__":
    sys.exit(main())
