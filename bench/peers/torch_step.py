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


def conv_net(batch):
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5, padding=2),
                        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10))
    x, y, loss = torch.rand(batch, 1, 28, 28), torch.randint(0, 10, (batch,)), nn.CrossEntropyLoss()
    return net, lambda: loss(net(x), y)


def conv_net_normalised(batch):
    nn, layers, channels = torch.nn, [], 1
    for out in (32, 64):
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
                   nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))
    x, y, loss = torch.rand(batch, 1, 28, 28), torch.randint(0, 10, (batch,)), nn.CrossEntropyLoss()
    return net, lambda: loss(net(x), y)


class Gru(torch.nn.Module):
    def __init__(self, vocabulary=1000, width=64, classes=10):
        super().__init__()
        self.words = torch.nn.Embedding(vocabulary, width)
        self.gru = torch.nn.GRU(width, width, batch_first=True)
        self.head = torch.nn.Linear(width, classes)

    def forward(self, tokens):
        return self.head(self.gru(self.words(tokens))[1][0])


class Transformer(torch.nn.Module):
    def __init__(self, times=20, vocabulary=1000, width=64, layers=2, heads=4, inner=256, classes=10):
        super().__init__()
        self.words = torch.nn.Embedding(vocabulary, width)
        self.places = torch.nn.Parameter(torch.rand(times, width))
        layer = torch.nn.TransformerEncoderLayer(width, heads, inner, dropout=0.0, activation="gelu", batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, layers)
        self.head = torch.nn.Linear(width, classes)

    def forward(self, tokens):
        return self.head(self.layers(self.words(tokens) + self.places).mean(1))


def over_tokens(make):
    def net_of(batch):
        net, loss = make(), torch.nn.CrossEntropyLoss()
        x, y = torch.randint(0, 1000, (batch, 20)), torch.randint(0, 10, (batch,))
        return net, lambda: loss(net(x), y)

    return net_of


NETS = {"perceptron": perceptron, "conv_net": conv_net, "conv_net_normalised": conv_net_normalised, "gru": over_tokens(Gru), "transformer": over_tokens(Transformer)}


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
