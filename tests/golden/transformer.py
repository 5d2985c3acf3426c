# Writes transformer.txt. Needs PyTorch (Debian python3-torch 1.13):
#   /usr/bin/python3 tests/golden/transformer.py > tests/golden/transformer.txt
# A transformer of two layers in double precision: embedding, learned positions, causal attention of two heads, GELU,
# layer normalisation after each half, cross-entropy at each position. src/gradient/transformer_test.cc builds the same
# as an ONNX graph, from the same sine waves.
import math
import torch

torch.set_num_threads(1)
V, D, H, T, F, L, B = 11, 8, 2, 5, 16, 2, 3
params = []


def fill(name, shape, scale, shift=0.0):
    n = math.prod(shape)
    k = 0.5 + len(params)
    p = torch.tensor([math.sin(0.37 * i + k) * scale + shift for i in range(n)], dtype=torch.float64)
    p = p.float().double().reshape(shape).requires_grad_()
    params.append((name, p))
    return p


def linear(name, x, i, o):
    w = fill(name + ".w", (i, o), 1 / math.sqrt(i))
    return x @ w + fill(name + ".b", (o,), 0.1)


def norm(name, x):
    return torch.nn.functional.layer_norm(x, (D,), fill(name + ".scale", (D,), 0.2, 1.0), fill(name + ".bias", (D,), 0.1))


ids = torch.tensor([[(3 * b + 2 * t * t + t) % V for t in range(T)] for b in range(B)])
target = torch.tensor([[(5 * b + t + 1) % V for t in range(T)] for b in range(B)])
h = fill("embedding", (V, D), 1.0)[ids] + fill("positions", (T, D), 0.5)
mask = torch.full((T, T), -1e4, dtype=torch.float64).triu(1)
for l in range(L):
    q, k, v = (linear("%d.%s" % (l, n), h, D, D).reshape(B, T, H, D // H).transpose(1, 2) for n in "qkv")
    a = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(D // H) + mask, -1)
    h = norm("%d.norm1" % l, h + linear("%d.o" % l, (a @ v).transpose(1, 2).reshape(B, T, D), D, D))
    f = linear("%d.f2" % l, torch.nn.functional.gelu(linear("%d.f1" % l, h, D, F)), F, D)
    h = norm("%d.norm2" % l, h + f)
loss = torch.nn.functional.cross_entropy(linear("out", h, D, V).reshape(-1, V), target.reshape(-1))
loss.backward()
print("loss %.12g" % loss.item())
for name, p in params:
    g = p.grad.flatten()
    at = [0, 1, len(g) // 2, len(g) - 1]
    print(name, "%.12g" % g.norm().item(), "%.12g" % g.sum().item(), *("%d %.12g" % (i, g[i].item()) for i in at))
