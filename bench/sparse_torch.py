#!/usr/bin/env python3
"""The model of bench/sparse's E4 in PyTorch, as a peer: samples per second of one thread. A batch has the ids of 26 fields,
by Zipf's law, and 13 numbers; a sum of 26 rows of 16 units of one sparse EmbeddingBag, and a linear layer. Needs python3-torch
(code 77 without it); nothing of varscope needs this file.

  bench/sparse_torch.py adam|adagrad [--vocabulary N] [--batch N] [--steps N]
"""
import argparse
import sys
import time

try:
    import torch
except ImportError:
    print("sparse_torch.py: python3-torch is not installed: skipped")
    sys.exit(77)

FIELDS, NUMBERS, UNITS, EXPONENT, WARM_UP = 26, 13, 16, 1.1, 5


def batches(n, batch, vocabulary):
    """(ids [batch, 26], numbers [batch, 13], labels [batch]) in memory; no two fields share an id."""
    mass = torch.arange(1, vocabulary + 1, dtype=torch.float64).pow(-EXPONENT).cumsum(0)
    mass /= mass[-1].clone()
    shuffled = torch.randperm(FIELDS * vocabulary)
    for _ in range(n):
        ranks = torch.searchsorted(mass, torch.rand(batch, FIELDS, dtype=torch.float64)).clamp(max=vocabulary - 1)
        ids = shuffled[ranks + torch.arange(FIELDS) * vocabulary]
        yield ids, torch.randn(batch, NUMBERS), torch.randint(2, (batch,)).float()


class Model(torch.nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.rows = torch.nn.EmbeddingBag(FIELDS * vocabulary, UNITS, mode="sum", sparse=True)
        self.logit = torch.nn.Linear(UNITS + NUMBERS, 1)

    def forward(self, ids, numbers):
        return self.logit(torch.cat([self.rows(ids), numbers], 1)).squeeze(1)


def optimizers(rule, model):
    rows, dense = model.rows.parameters(), model.logit.parameters()
    if rule == "adam":
        return [torch.optim.SparseAdam(list(rows), lr=0.001), torch.optim.Adam(dense, lr=0.001)]
    return [torch.optim.Adagrad(list(rows), lr=0.1), torch.optim.Adagrad(dense, lr=0.1)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("rule", choices=["adam", "adagrad"])
    parser.add_argument("--vocabulary", type=int, default=100000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = Model(options.vocabulary)
    rules = optimizers(options.rule, model)
    loss_of = torch.nn.BCEWithLogitsLoss()
    data = list(batches(WARM_UP + options.steps, options.batch, options.vocabulary))
    for step, (ids, numbers, labels) in enumerate(data):
        if step == WARM_UP:
            began = time.perf_counter()
        for rule in rules:
            rule.zero_grad()
        loss_of(model(ids, numbers), labels).backward()
        for rule in rules:
            rule.step()
    print(f"{options.batch * options.steps / (time.perf_counter() - began):.0f} samples/s")


if __name__ == "__main__":
    main()
