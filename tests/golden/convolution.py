# Writes convolution.txt: gradients of whole convolutional networks by PyTorch in double precision. Needs Debian's
# python3-torch (1.13): /usr/bin/python3 tests/golden/convolution.py > tests/golden/convolution.txt
# Weights and inputs are a hash of their place (noise below), rounded to single precision, so nothing but results is
# stored: for every parameter its norm, its sum, and some of its numbers.
import math

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
count = 0
params = []


def noise(shape, k):
    n = math.prod(shape)
    h = (torch.arange(n, dtype=torch.int64) * 2654435761 + k * 2246822519) % 2**32
    h = h ^ (h >> 15)
    h = (h * 2246822519) % 2**32  # below 2^63
    h = h ^ (h >> 13)
    return (h.to(torch.float64) / 2**31 - 1).reshape(shape)


def param(shape, scale, offset=0.0):
    global count
    count += 1
    p = (noise(shape, count) * scale + offset).to(torch.float32).to(torch.float64).requires_grad_()
    params.append(("p%d" % count, p))
    return p


def start():
    global count
    count = 0
    params.clear()


def conv(x, out, k, bias=False, stride=1, padding=0, groups=1, dilation=1):
    fan = x.shape[1] // groups * k * k
    w = param((out, x.shape[1] // groups, k, k), math.sqrt(6 / fan))
    b = param((out,), 0.1) if bias else None
    return F.conv2d(x, w, b, stride, padding, dilation, groups)


def norm(x):
    return F.batch_norm(x, None, None, param((x.shape[1],), 0.3, 1.0), param((x.shape[1],), 0.2), training=True, eps=1e-5)


def linear(x, out):
    w = param((x.shape[1], out), math.sqrt(3 / x.shape[1]))
    return x @ w + param((out,), 0.1)


def fedavg(x):
    x = F.max_pool2d(torch.relu(conv(x, 32, 5, True, padding=2)), 2)
    x = F.max_pool2d(torch.relu(conv(x, 64, 5, True, padding=2)), 2)
    return linear(torch.relu(linear(x.flatten(1), 512)), 10)


def block(x, out, stride):
    h = torch.relu(norm(conv(x, out, 3, stride=stride, padding=1)))
    h = norm(conv(h, out, 3, padding=1))
    if stride != 1:
        x = norm(conv(x, out, 1, stride=stride))
    return torch.relu(h + x)


def resnet(x):
    x = F.max_pool2d(torch.relu(norm(conv(x, 8, 7, stride=2, padding=3))), 3, 2, 1)
    for out, stride in ((8, 1), (8, 1), (16, 2), (16, 1), (32, 2), (32, 1)):
        x = block(x, out, stride)
    return linear(x.mean((2, 3)), 10)


def separable(x, out, stride):
    c = x.shape[1]
    x = F.relu6(norm(conv(x, c, 3, stride=stride, padding=1, groups=c)))
    return F.relu6(norm(conv(x, out, 1)))


def mobilenet(x):
    x = F.relu6(norm(conv(x, 8, 3, stride=2, padding=1)))
    for out, stride in ((16, 1), (24, 2), (24, 1), (56, 1), (56, 2)):
        x = separable(x, out, stride)
    return linear(x.mean((2, 3)), 10)


def group_norm(x, groups):
    c = x.shape[1]
    h = F.group_norm(x, groups, eps=1e-5)
    return h * param((c, 1, 1), 0.3, 1.0) + param((c, 1, 1), 0.2)


# Down by strides and averages, up again by transposed convolutions, values for every pixel.
def autoencoder(x):
    x = torch.relu(group_norm(conv(x, 8, 3, True, stride=2, padding=1), 2))
    x = torch.relu(group_norm(conv(F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), 12, 3, padding=2, dilation=2), 3))
    x = torch.relu(F.conv_transpose2d(x, param((12, 8, 3, 3), 0.3), param((8,), 0.1), 2, 1, 1))
    x = F.conv_transpose2d(x, param((8, 1, 2, 2), 0.5), param((2,), 0.1), 2, groups=2)
    return x.flatten(1)


def case(name, net, batch, shape, k):
    start()
    x = noise((batch, *shape), 1000).to(torch.float32).to(torch.float64)
    y = net(x)
    if k > 0:
        loss = F.cross_entropy(y, torch.arange(batch) % k)
    else:
        loss = F.mse_loss(y, noise(tuple(y.shape), 2000).to(torch.float32).to(torch.float64))
    loss.backward()
    print("case", name, batch, "%.12g" % loss.item())
    for n, p in params:
        g = p.grad.flatten()
        at = sorted({0, 1, len(g) // 3, len(g) // 2, 2 * len(g) // 3, len(g) - 1})
        print(n, "%.12g" % g.norm().item(), "%.12g" % g.sum().item(), " ".join("%d %.12g" % (i, g[i].item()) for i in at))


case("fedavg", fedavg, 10, (1, 28, 28), 10)
case("fedavg", fedavg, 1, (1, 28, 28), 10)
case("resnet", resnet, 3, (3, 35, 33), 10)
case("mobilenet", mobilenet, 5, (3, 33, 31), 10)
case("autoencoder", autoencoder, 2, (1, 16, 24), 0)
case("autoencoder", autoencoder, 1, (1, 20, 16), 0)
