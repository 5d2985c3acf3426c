# One training step of a perceptron in PyTorch, timed inside one process at the asking of bench_train.
# Reads "batch steps kind" lines on standard input and answers each with the median milliseconds of a step, so that both
# sides of the comparison take turns on the same machine. One thread. Needs Debian's python3-torch.
import sys
import time

import torch

torch.set_num_threads(1)
print("torch", torch.__version__, flush=True)


def perceptron(sizes):
    layers = []
    for i in range(len(sizes) - 1):
        layers.append(torch.nn.Linear(sizes[i], sizes[i + 1]))
        if i + 2 < len(sizes):
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers)


nets = {}
for line in sys.stdin:
    batch, steps, kind = line.split()
    batch, steps = int(batch), int(steps)
    if (batch, kind) not in nets:
        torch.manual_seed(1)
        net = perceptron([784, 200, 200, 10])
        optimiser = torch.optim.SGD(net.parameters(), lr=0.01) if kind == "sgd" else torch.optim.Adam(net.parameters(), lr=0.001)
        nets[(batch, kind)] = (net, optimiser, torch.rand(batch, 784), torch.randint(0, 10, (batch,)), torch.nn.CrossEntropyLoss())
    net, optimiser, x, y, loss_function = nets[(batch, kind)]
    times = []
    for _ in range(steps):
        begin = time.perf_counter()
        optimiser.zero_grad()
        loss = loss_function(net(x), y)
        loss.backward()
        optimiser.step()
        times.append(time.perf_counter() - begin)
    times.sort()
    print(times[len(times) // 2] * 1000, flush=True)
