# Writes recurrent.txt. Needs PyTorch (Debian python3-torch 1.13): /usr/bin/python3 tests/golden/recurrent.py > tests/golden/recurrent.txt
# Classifiers of token sequences: embedding, one recurrent layer, a linear layer; softmax cross-entropy, double precision.
# Parameters are waves sin(0.37 i + k) * scale in ONNX's layout, so nothing but the results is stored; gradients are
# given in that layout, too. Numbers of a case: operator, directions, what is read, batch, times, loss.
import math

import torch

torch.set_num_threads(1)
VOCABULARY, EMBEDDING, HIDDEN, CLASSES = 11, 6, 5, 3
ORDER = {"GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1], "RNN": [0]}  # PyTorch's gate -> ONNX's gate
PY = {"GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM, "RNN": torch.nn.RNN}


def wave(shape, k, scale):
    n = 1
    for d in shape:
        n *= d
    return (torch.tensor([math.sin(0.37 * i + k) for i in range(n)], dtype=torch.float64) * scale).reshape(shape)


def to_torch(value, op):  # [G H, ...] in ONNX's order of gates to PyTorch's
    gates = value.reshape(len(ORDER[op]), HIDDEN, *value.shape[1:])
    return gates[ORDER[op]].reshape(value.shape)


def to_onnx(value, op):
    gates = value.reshape(len(ORDER[op]), HIDDEN, *value.shape[1:])
    out = torch.zeros_like(gates)
    for torch_gate, onnx_gate in enumerate(ORDER[op]):
        out[onnx_gate] = gates[torch_gate]
    return out.reshape(value.shape)


def case(op, directions, reads, batch, times):
    g = len(ORDER[op]) * HIDDEN
    embedding = wave((VOCABULARY, EMBEDDING), 1.0, 0.8).requires_grad_()
    w = wave((directions, g, EMBEDDING), 2.0, 0.5)
    r = wave((directions, g, HIDDEN), 3.0, 0.5)
    b = wave((directions, 2 * g), 4.0, 0.2)
    fw = wave((CLASSES, directions * HIDDEN), 5.0, 0.6).requires_grad_()
    fb = wave((CLASSES,), 6.0, 0.1).requires_grad_()
    net = PY[op](EMBEDDING, HIDDEN, bidirectional=directions == 2).double()
    with torch.no_grad():
        for d in range(directions):
            tail = "_l0" + ("_reverse" if d else "")
            getattr(net, "weight_ih" + tail).copy_(to_torch(w[d], op))
            getattr(net, "weight_hh" + tail).copy_(to_torch(r[d], op))
            getattr(net, "bias_ih" + tail).copy_(to_torch(b[d, :g], op))
            getattr(net, "bias_hh" + tail).copy_(to_torch(b[d, g:], op))
    tokens = torch.tensor([[(3 * i + 5 * t) % VOCABULARY for t in range(times)] for i in range(batch)])
    y, last = net(embedding[tokens].transpose(0, 1))
    last = last[0] if op == "LSTM" else last
    h = y.mean(0) if reads == "mean" else torch.cat(list(last), 1)
    loss = torch.nn.functional.cross_entropy(h @ fw.T + fb, torch.arange(batch) % CLASSES)
    loss.backward()
    print("case", op, directions, reads, batch, times, "%.12g" % loss.item())
    of = lambda name: torch.stack([to_onnx(getattr(net, name + "_l0" + ("_reverse" if d else "")).grad, op) for d in range(directions)])
    gradients = {"embedding": embedding.grad, "w": of("weight_ih"), "r": of("weight_hh"), "b": torch.cat([of("bias_ih"), of("bias_hh")], 1), "fw": fw.grad, "fb": fb.grad}
    for name, gradient in gradients.items():
        flat = gradient.flatten()
        at = [0, 1, len(flat) // 2, len(flat) - 1]
        print(name, "%.12g" % flat.norm().item(), "%.12g" % flat.sum().item(), " ".join("%d %.12g" % (i, flat[i].item()) for i in at))


for op in ["GRU", "LSTM", "RNN"]:
    case(op, 1, "last", 4, 7)
    case(op, 1, "mean", 1, 5)
    case(op, 2, "mean", 3, 6)
    case(op, 2, "last", 1, 9)
