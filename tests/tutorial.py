"""The plain training loop that tutorials write, for the benchmark: an epoch for each line on standard input.

    python tests/tutorial.py DATA_DIR IMAGES LOG_DIR

A process of its own, so that nothing that common.py does for speed reaches it. Same network, batches and rate.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset
from torch.utils.tensorboard import SummaryWriter
from torchvision import datasets, transforms

data_dir, images, log_dir = sys.argv[1], int(sys.argv[2]), sys.argv[3]
train_set, test_set = (
    Subset(datasets.MNIST(data_dir, train=train, transform=transforms.ToTensor()), range(count))
    for train, count in ((True, images), (False, images // 6)))
train_loader, test_loader = DataLoader(train_set, batch_size=100, shuffle=True), DataLoader(test_set, batch_size=100)
network = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
    nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
    nn.Linear(32 * 28 * 28, 256), nn.ReLU(), nn.Linear(256, 10))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
writer = SummaryWriter(log_dir)

for _ in sys.stdin:
    network.train()
    for step, (inputs, labels) in enumerate(train_loader):
        loss = F.cross_entropy(network(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        writer.add_scalar("loss", loss.item(), step)
    network.eval()
    with torch.no_grad():
        correct = sum((network(inputs).argmax(1) == labels).sum().item() for inputs, labels in test_loader)
    print(correct, flush=True)
