#!/usr/bin/env python3
"""Other programs at the work of bench/data: a line for each that Python has. Nothing of varscope needs this file.

  bench/data_peers.py csv FILE       pandas and LightGBM read a table
  bench/data_peers.py libsvm FILE    LightGBM and scikit-learn read rows of label index:value
  bench/data_peers.py a9a FILE       PyTorch trains a logistic regression with one thread
"""
import os
import sys
import time


def seconds_of(work):
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def told(name, file, work):
    try:
        took = seconds_of(work)
    except ImportError as missing:
        print(f"{name}: {missing.name} is not installed")
        return
    print(f"{name}: {os.path.getsize(file) / took * 1e-6:.1f} MB/s")


def pandas_csv(file):
    import pandas

    pandas.read_csv(file)


def lightgbm_file(file, parameters):
    import lightgbm

    lightgbm.Dataset(file, params={"verbose": -1, "num_threads": 1, **parameters}).construct()


def sklearn_libsvm(file):
    import sklearn.datasets

    sklearn.datasets.load_svmlight_file(file)


def torch_a9a(file, features=123, batch=128, epochs=3):
    try:
        import torch
    except ImportError:
        print("PyTorch: torch is not installed")
        return
    torch.set_num_threads(1)
    x, y = [], []
    with open(file, encoding="ascii") as rows:
        for row in rows:
            label, *cells = row.split()
            y.append(1.0 if float(label) > 0 else 0.0)
            dense = [0.0] * features
            for cell in cells:
                index, value = cell.split(":")
                dense[int(index) - 1] = float(value)
            x.append(dense)
    x, y = torch.tensor(x), torch.tensor(y)
    model = torch.nn.Linear(features, 1)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    loss_of = torch.nn.BCEWithLogitsLoss()
    began = time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            loss_of(model(x[rows]).squeeze(1), y[rows]).backward()
            optimizer.step()
    print(f"PyTorch, 1 thread: {epochs * len(x) / (time.perf_counter() - began):.0f} rows/s")


def main():
    what, file = sys.argv[1:]
    if what == "csv":
        told("pandas", file, lambda: pandas_csv(file))
        told("LightGBM", file, lambda: lightgbm_file(file, {"header": True, "label_column": "name:y"}))
    elif what == "libsvm":
        told("LightGBM", file, lambda: lightgbm_file(file, {}))
        told("scikit-learn", file, lambda: sklearn_libsvm(file))
    else:
        torch_a9a(file)


if __name__ == "__main__":
    main()
