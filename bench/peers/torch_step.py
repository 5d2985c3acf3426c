# Training steps in PyTorch, timed inside one process at the asking of bench_train.
# Reads "NET BATCH STEPS OPTIMISER" lines on standard input and answers each with the median milliseconds of a step, so
# that both sides of the comparison take turns on the same machine. One thread. Needs Debian's python3-torch.
# A net is a function of the batch size in NETS: it gives the module (or any parameters holder) and a function that
# computes the loss of one batch.
import sys
import time

import torch

torch.set_num_threads(1)


def perceptron(batch):
    sizes = [784, 200, 200, 10]
    layers = []
    for i in range(len(sizes) - 1):
        layers.append(torch.nn.Linear(sizes[i], sizes[i + 1]))
        if i + 2 < len(sizes):
            layers.append(torch.nn.ReLU())
    net = torch.nn.Sequential(*layers)
    x, y, loss = torch.rand(batch, 784), torch.randint(0, 10, (batch,)), torch.nn.CrossEntropyLoss()
    return net, lambda: loss(net(x), y)


NETS = {"perceptron": perceptron}


def optimiser_of(name, parameters):
    return torch.optim.SGD(parameters, lr=0.01) if name == "sgd" else torch.optim.Adam(parameters, lr=0.001)


def main():
    print("torch", torch.__version__, flush=True)
    made = {}
    for line in sys.stdin:
        name, batch, steps, kind = line.split()
        if (name, batch, kind) not in made:
            torch.manual_seed(1)
            net, loss_of = NETS[name](int(batch))
            made[(name, batch, kind)] = (loss_of, optimiser_of(kind, net.parameters()))
        loss_of, optimiser = made[(name, batch, kind)]
        times = []
        for _ in range(int(steps)):
            begin = time.perf_counter()
            optimiser.zero_grad()
            loss_of().backward()
            optimiser.step()
            times.append(time.perf_counter() - begin)
        times.sort()
        print(times[len(times) // 2] * 1000, flush=True)


if __name__ == "__main__":
    main()
