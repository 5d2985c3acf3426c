#!/usr/bin/env python3
"""Asks a running node the way stock clients do: NVIDIA's tritonclient over HTTP, gRPC, streams and shared memory.

Usage: bench/peers/stock_client.py   (make stock-client sets it up)
Starts build/release/ganglion on free ports with the decision of `make demo`, asks, compares the ways with each other,
and ends it. Where tritonclient cannot be had it says so and leaves with 0.
"""
import gzip
import queue
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
try:
    import numpy as np
    import tritonclient.grpc as over_grpc
    import tritonclient.http as over_http
    import tritonclient.utils.shared_memory as shared
except ImportError as e:
    print(f"skipped: {e}; needs pip install 'tritonclient[http,grpc]'")
    sys.exit(0)

DATA = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
if not (ROOT / "out/fashion/decision.lock").exists() or not DATA.exists():
    print("skipped: run make demo first, it trains and certifies the decision")
    sys.exit(0)

checks = 0


def check(what, got, want):
    global checks
    checks += 1
    if not np.array_equal(got, want):
        print(f"FAILED {what}: got {got}, want {want}")
        sys.exit(1)


with tempfile.TemporaryDirectory() as folder:
    config = Path(folder) / "node.yaml"
    config.write_text(f"tier: global\nnode: stock\ndecisions: [{ROOT}/out/fashion]\n"
                      'listen: {http: "127.0.0.1:0", grpc: "127.0.0.1:0", metrics: "127.0.0.1:0"}\nlog: {level: error}\n')
    node = subprocess.Popen([ROOT / "build/release/ganglion", "serve", config], stdout=subprocess.PIPE, text=True)
    try:
        http_port, grpc_port, _ = re.findall(r":(\d+)", node.stdout.readline())
        raw = gzip.open(DATA).read()[16 : 16 + 784 * 16]
        images = np.frombuffer(raw, dtype=np.uint8).reshape(16, 784).astype(np.float32) / 255

        client = over_http.InferenceServerClient(f"127.0.0.1:{http_port}")
        check("live, ready, model ready", [client.is_server_live(), client.is_server_ready(), client.is_model_ready("fashion")], [True] * 3)
        check("metadata", client.get_model_metadata("fashion")["inputs"][0]["shape"], [-1, 784])
        check("config", client.get_model_config("fashion")["input"][0]["data_type"], "TYPE_FP32")
        item = over_http.InferInput("image", [16, 784], "FP32")
        item.set_data_from_numpy(images, binary_data=True)
        answer = client.infer("fashion", [item], request_id="a")
        labels, names = answer.as_numpy("label"), answer.as_numpy("label_name")
        check("id", answer.get_response()["id"], "a")
        as_json = over_http.InferInput("image", [16, 784], "FP32")
        as_json.set_data_from_numpy(images, binary_data=False)
        check("JSON against binary", client.infer("fashion", [as_json]).as_numpy("label"), labels)
        check("text outputs", client.infer("fashion", [as_json]).as_numpy("label_name"), names)
        asked = [over_http.InferRequestedOutput("ganglion.tier"), over_http.InferRequestedOutput("label", binary_data=False)]
        check("asked outputs", client.infer("fashion", [item], outputs=asked).as_numpy("label"), labels)
        check("asynchronous", client.async_infer("fashion", [item]).get_result().as_numpy("label"), labels)
        check("timeout parameter", client.infer("fashion", [item], timeout=1_000_000).as_numpy("label"), labels)
        try:
            client.infer("no-such-model", [item])
            check("unknown model", "an answer", "an error")
        except over_http.InferenceServerException as e:
            check("unknown model", "there is no model" in str(e), True)
        check("statistics", client.get_inference_statistics("fashion")["model_stats"][0]["inference_stats"]["success"]["count"] > 0, True)
        client.load_model("fashion")
        check("index", [m["state"] for m in client.get_model_repository_index()], ["READY"])
        region = shared.create_shared_memory_region("in", "/ganglion-stock-client", images.nbytes)
        shared.set_shared_memory_region(region, [images])
        client.register_system_shared_memory("in", "/ganglion-stock-client", images.nbytes)
        placed = over_http.InferInput("image", [16, 784], "FP32")
        placed.set_shared_memory("in", images.nbytes)
        check("shared memory", client.infer("fashion", [placed]).as_numpy("label"), labels)
        client.unregister_system_shared_memory("in")
        shared.destroy_shared_memory_region(region)

        client = over_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")
        check("gRPC live, ready, model ready", [client.is_server_live(), client.is_server_ready(), client.is_model_ready("fashion")], [True] * 3)
        item = over_grpc.InferInput("image", [16, 784], "FP32")
        item.set_data_from_numpy(images)
        answer = client.infer("fashion", [item], request_id="b", client_timeout=5)
        check("gRPC labels", answer.as_numpy("label"), labels)
        check("gRPC text outputs", answer.as_numpy("label_name"), names)
        check("gRPC id", answer.get_response().id, "b")
        came = queue.Queue()
        client.start_stream(lambda result, error: came.put((result, error)))
        for i in range(20):
            client.async_stream_infer("fashion", [item], request_id=str(i))
        got = [came.get(timeout=10) for _ in range(20)]
        client.stop_stream()
        check("stream errors", [error for _, error in got], [None] * 20)
        check("stream ids", sorted(int(result.get_response().id) for result, _ in got), list(range(20)))
        check("stream labels", got[0][0].as_numpy("label"), labels)
        check("gRPC config", client.get_model_config("fashion").config.name, "fashion")
        check("gRPC index", client.get_model_repository_index().models[0].state, "READY")
    finally:
        node.terminate()
        node.wait(timeout=20)
print(f"ok: {checks} checks with tritonclient over HTTP, gRPC, a stream and shared memory")
