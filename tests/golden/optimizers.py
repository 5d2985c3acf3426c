# Writes optimizers.txt. Needs PyTorch (Debian python3-torch 1.13):
#   /usr/bin/python3 tests/golden/optimizers.py > tests/golden/optimizers.txt
# Yogi is not in PyTorch 1.13; its lines come from the few lines of `yogi` below, written from algorithm 2 of M. Zaheer
# et al., 2018, with Adam's correction of the start.
import math
import warnings

import torch

warnings.filterwarnings("ignore")
N, STEPS = 8, 6


def start():
    return torch.tensor([math.sin(0.7 * i + 0.3) for i in range(N)], dtype=torch.float64)


def gradient(i, t):  # of step t, from 1; crosses zero and jumps, so that Yogi's signs change
    return math.cos(1.3 * i + 0.9 * t) * (5.0 if t == 3 else 1.0)


def run(name, text, make):
    p = start().requires_grad_()
    optimiser = make([p])
    for t in range(1, STEPS + 1):
        p.grad = torch.tensor([gradient(i, t) for i in range(N)], dtype=torch.float64)
        optimiser.step()
    print("optimizer", name, text, *("%.12g" % v for v in p.detach()))


def yogi(rate, beta1, beta2, epsilon, initial, decay):
    p, m, v = start(), torch.zeros(N, dtype=torch.float64), torch.full((N,), initial, dtype=torch.float64)
    for t in range(1, STEPS + 1):
        g = torch.tensor([gradient(i, t) for i in range(N)], dtype=torch.float64) + decay * p
        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * torch.sign(v - g * g) * g * g
        p = p - rate * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + epsilon)
    print("optimizer yogi", f"{rate} 0 {beta1} {beta2} {epsilon} {decay} {initial}", *("%.12g" % x for x in p))


# name, then: rate momentum beta1 beta2 epsilon weight_decay initial_second, then the parameters after six steps
o = torch.optim
run("sgd", "0.1 0 0.9 0.999 1e-8 0 0", lambda p: o.SGD(p, lr=0.1))
run("sgd", "0.1 0.9 0.9 0.999 1e-8 0.01 0", lambda p: o.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01))
run("nesterov", "0.1 0.9 0.9 0.999 1e-8 0 0", lambda p: o.SGD(p, lr=0.1, momentum=0.9, nesterov=True))
run("nesterov", "0.1 0.5 0.9 0.999 1e-8 0.1 0", lambda p: o.SGD(p, lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.1))
run("adam", "0.01 0 0.9 0.999 1e-8 0 0", lambda p: o.Adam(p, lr=0.01))
run("adam", "0.02 0 0.8 0.99 1e-6 0.1 0", lambda p: o.Adam(p, lr=0.02, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1))
run("adamw", "0.01 0 0.9 0.999 1e-8 0.01 0", lambda p: o.AdamW(p, lr=0.01, weight_decay=0.01))
run("adamw", "0.05 0 0.8 0.99 1e-6 0.5 0", lambda p: o.AdamW(p, lr=0.05, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.5))
run("adagrad", "0.1 0 0.9 0.999 1e-10 0 0", lambda p: o.Adagrad(p, lr=0.1))
run("adagrad", "0.1 0 0.9 0.999 1e-10 0.05 0.25", lambda p: o.Adagrad(p, lr=0.1, weight_decay=0.05, initial_accumulator_value=0.25))
yogi(0.01, 0.9, 0.999, 1e-3, 1e-6, 0)
yogi(0.05, 0.8, 0.9, 1e-3, 0.5, 0.1)


def rates(text, make, n, half=False, epoch=1):
    optimiser = o.SGD([start().requires_grad_()], lr=1.0)
    schedule = make(optimiser)
    got = []
    for s in range(2 * n + 1 if half else n):
        got.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    # Ours sits in the middle of each step: a schedule of twice the length, at its odd steps.
    print("schedule", text, n, epoch, *("%.12g" % v for v in (got[1::2][:n] if half else got)))


S = o.lr_scheduler
# text, steps, steps an epoch, then the multiplier of every step
rates("linear:0.1", lambda x: S.LinearLR(x, 1.0, 0.1, 40), 20, half=True)
rates("cosine", lambda x: S.CosineAnnealingLR(x, 40), 20, half=True)
rates("cosine:0.05", lambda x: S.CosineAnnealingLR(x, 30, eta_min=0.05), 15, half=True)
rates("step:3:0.5", lambda x: S.StepLR(x, 3, 0.5), 12)
rates("exponential:0.9", lambda x: S.ExponentialLR(x, 0.9), 12)
rates("onecycle:0.3", lambda x: S.OneCycleLR(x, 1.0, total_steps=20, pct_start=0.3), 20)
rates("onecycle:0.5", lambda x: S.OneCycleLR(x, 1.0, total_steps=11, pct_start=0.5), 11)

losses = [1.0, 0.9, 0.89999, 0.95, 0.91, 0.9, 0.85, 0.86, 0.86, 0.86, 0.86, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
for patience, factor in ((2, 0.5), (0, 0.1)):
    optimiser = o.SGD([start().requires_grad_()], lr=1.0)
    plateau = S.ReduceLROnPlateau(optimiser, factor=factor, patience=patience, eps=0)
    out = []
    for loss in losses:
        plateau.step(loss)
        out.append(optimiser.param_groups[0]["lr"])
    print("plateau", f"plateau:{patience}:{factor}", len(losses), *losses, *("%.12g" % v for v in out))

for limit in (0.5, 1.0, 100.0):
    p = start().requires_grad_()
    p.grad = torch.tensor([gradient(i, 3) for i in range(N)], dtype=torch.float64)
    norm = torch.nn.utils.clip_grad_norm_([p], limit)
    print("clip", limit, "%.12g" % norm.item(), *("%.12g" % v for v in p.grad))
