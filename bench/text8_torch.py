#!/usr/bin/env python3
"""The language model of configs/text8_lstm.yaml in PyTorch, as a peer: perplexity on the test text after an epoch, and
words per second with one thread. Needs python3-torch (code 77 without it); nothing of varscope needs this file.

  VARSCOPE_DATA=data bench/text8_torch.py [--words N]
  bench/text8_torch.py --smoke        a few steps on words of its own, to see that it runs
"""
import argparse
import collections
import math
import os
import sys
import time

try:
    import torch
except ImportError:
    print("text8_torch.py: python3-torch is not installed: skipped")
    sys.exit(77)

VOCABULARY, UNITS, ROWS, STEPS, CLIP, TEST_FRACTION = 10000, 200, 20, 20, 5.0, 0.1


def read_words():
    root = os.environ.get("VARSCOPE_DATA", "data")
    with open(os.path.join(root, "text8/text8.split.head"), encoding="ascii") as f:
        return f.read().split()


def few_words():
    return [f"w{i * i % 97}" for i in range(ROWS * STEPS * 30)]


def as_training_and_test(words, limit):
    n_train = len(words) - math.floor(len(words) * TEST_FRACTION)
    counts = collections.Counter(words[:n_train])
    ordered = sorted(counts, key=lambda w: (-counts[w], w))[: VOCABULARY - 1]
    ids = {w: i + 1 for i, w in enumerate(ordered)}
    as_ids = [ids.get(w, 0) for w in words]
    train = as_ids[:n_train]
    return train[:limit] if limit else train, as_ids[n_train:]


def windows(ids):
    length = (len(ids) - 1) // ROWS
    x = torch.tensor([ids[r * length : (r + 1) * length] for r in range(ROWS)])
    y = torch.tensor([ids[r * length + 1 : (r + 1) * length + 1] for r in range(ROWS)])
    for t in range(length // STEPS):
        yield x[:, t * STEPS : (t + 1) * STEPS], y[:, t * STEPS : (t + 1) * STEPS]


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, UNITS)
        self.lstm = torch.nn.LSTM(UNITS, UNITS, batch_first=True)
        self.output = torch.nn.Linear(UNITS, VOCABULARY)
        for name, p in self.named_parameters():
            if "bias" in name:
                torch.nn.init.zeros_(p)
            else:
                torch.nn.init.uniform_(p, -0.1, 0.1)
        with torch.no_grad():
            self.lstm.bias_ih_l0[UNITS : 2 * UNITS] = 1  # forget gate

    def forward(self, x, state):
        h, state = self.lstm(self.embedding(x), state)
        return self.output(h), tuple(s.detach() for s in state)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--words", type=int, default=0, help="train on the first n words only")
    parser.add_argument("--smoke", action="store_true", help="a few steps on words of its own; needs no data")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    train, test = as_training_and_test(few_words() if args.smoke else read_words(), args.words)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loss_of = torch.nn.CrossEntropyLoss(reduction="sum")
    state, n, total, started = None, 0, 0.0, time.monotonic()
    for x, y in windows(train):
        optimizer.zero_grad()
        logits, state = model(x, state)
        loss = loss_of(logits.reshape(-1, VOCABULARY), y.reshape(-1)) / ROWS
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        n += y.numel()
        total += loss.item() * ROWS
    seconds = time.monotonic() - started
    print(f"training loss {total / n:.4f} a word, {n / seconds:,.0f} words/s")
    state, n, total = None, 0, 0.0
    with torch.no_grad():
        for x, y in windows(test):
            logits, state = model(x, state)
            total += loss_of(logits.reshape(-1, VOCABULARY), y.reshape(-1)).item()
            n += y.numel()
    print(f"test loss {total / n:.4f}, perplexity {math.exp(total / n):.1f}")


main()
