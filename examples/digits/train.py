"""Train the digits network for a few seconds and save a checkpoint as training scripts do.

    python examples/digits/train.py checkpoint.pth test-set.npz

The checkpoint is ``{'epoch', 'model', 'optim', 'loss'}``; the npz holds the test images (float32, [n, 1, 8, 8], values
in [0, 1]), their labels, and the trained network's own logits on them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "plugins"))
from digits import digits

EPOCHS = 12


def split_digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images, test images, training labels, test labels."""
    source = load_digits()
    images = (source.images / 16.0).astype(np.float32)[:, None]
    parts = train_test_split(images, source.target, test_size=0.25, random_state=0, stratify=source.target)
    return tuple(torch.from_numpy(part) for part in parts)


def train(images: torch.Tensor, labels: torch.Tensor) -> tuple[nn.Module, torch.optim.Optimizer, float]:
    """The network after EPOCHS passes in batches of 64, its optimiser, and the last batch's loss."""
    torch.manual_seed(0)
    model = digits().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimiser.step()
    return model.eval(), optimiser, loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("test_set", type=Path)
    arguments = parser.parse_args()
    train_images, test_images, train_labels, test_labels = split_digits()
    model, optimiser, loss = train(train_images, train_labels)
    torch.save(
        {"epoch": EPOCHS, "model": model.state_dict(), "optim": optimiser.state_dict(), "loss": loss},
        arguments.checkpoint,
    )
    with torch.inference_mode():
        logits = model(test_images)
    np.savez(arguments.test_set, images=test_images.numpy(), labels=test_labels.numpy(), logits=logits.numpy())
    accuracy = float((logits.argmax(1) == test_labels).float().mean())
    print(f"    trained on {len(train_images)} digits, accuracy on {len(test_images)} others: {accuracy:.2%}")


if __name__ == "__main__":
    main()
