"""Every objective as its formula reads, in nested loops over float64 scalars, as the reference of the tensor code.

Each takes the anchors (n, d) and the references (m, d), of which the first n are the anchors themselves, as an
objective's `compare` does.
"""

from __future__ import annotations

import math

import torch


def contrastive(x, labels, refs, ref_labels, margin=1.0, balance=True):
    positive, negative = [], []
    for i in range(len(x)):
        for j in range(len(refs)):
            d = ((x[i] - refs[j]) ** 2).sum().sqrt() if i != j else None
            if i != j and labels[i] == ref_labels[j]:
                positive.append(d**2)
            elif i != j:
                negative.append(max(margin - d, 0 * d) ** 2)
    return _pair_mean(positive, negative, balance, x)


def cosine_pair(x, labels, refs, ref_labels, balance=True, floor=-1.0):
    positive, negative = [], []
    for i in range(len(x)):
        for j in range(len(refs)):
            s = x[i] @ refs[j]
            if i != j and labels[i] == ref_labels[j]:
                positive.append(1 - s)
            elif i != j:
                negative.append(s if s > floor else 0 * s + floor)
    return _pair_mean(positive, negative, balance, x)


def triplet(x, labels, refs, ref_labels, margin=0.2, mining="easy_excluded", average="triplets"):
    losses, owners = [], []
    for a in range(len(x)):
        for p in range(len(refs)):
            for n in range(len(refs)):
                if p == a or labels[a] != ref_labels[p] or labels[a] == ref_labels[n]:
                    continue
                near, far = ((x[a] - refs[p]) ** 2).sum(), ((x[a] - refs[n]) ** 2).sum()
                hard, kept = bool(far <= near), bool(far >= near + margin)
                selected = {
                    "all": True,
                    "hard": hard,
                    "semihard": not hard and not kept,
                    "easy_excluded": not kept,
                }
                if selected[mining]:
                    losses.append((near - far + margin) if not kept else 0 * near)
                    owners.append({"triplets": len(losses), "pairs": (a, p), "anchors": a}[average])
    means = []
    for owner in dict.fromkeys(owners):
        own = [loss for loss, its in zip(losses, owners, strict=True) if its == owner]
        means.append(sum(own) / len(own))
    return _mean(means, x)


def info_nce(x, labels, refs, ref_labels, temperature=0.1, positives=None):
    """`positives`: only references below this number may be positives; None for all."""
    losses = []
    for i in range(len(x)):
        against = [
            torch.exp(x[i] @ refs[k] / temperature) for k in range(len(refs)) if k != i and ref_labels[k] != labels[i]
        ]
        for p in range(len(refs) if positives is None else positives):
            if p != i and labels[i] == ref_labels[p]:
                own = torch.exp(x[i] @ refs[p] / temperature)
                losses.append(-torch.log(own / (own + sum(against))))
    return _mean(losses, x)


def simclr(x, labels, refs, ref_labels, temperature=0.5):
    return info_nce(x, labels, refs, ref_labels, temperature, positives=len(x))


def clip(images, texts, ref_images, ref_texts, temperature=0.07):
    total = 0.0
    for i in range(len(images)):
        to_texts = sum(torch.exp(images[i] @ ref_texts[j] / temperature) for j in range(len(ref_texts)))
        to_images = sum(torch.exp(texts[i] @ ref_images[j] / temperature) for j in range(len(ref_images)))
        own = torch.exp(images[i] @ texts[i] / temperature)
        total = total - torch.log(own / to_texts) - torch.log(own / to_images)
    return total / (2 * len(images))


def patch_nce(queries, keys, temperature, across_batch):
    layers = []
    for q, k in zip(queries, keys, strict=True):
        losses = []
        batch, _, places = q.shape
        for b in range(batch):
            for s in range(places):
                others = range(batch) if across_batch else [b]
                logits = [
                    math.exp(_cosine(q[b, :, s], k[c, :, r]) / temperature) for c in others for r in range(places)
                ]
                losses.append(-math.log(math.exp(_cosine(q[b, :, s], k[b, :, s]) / temperature) / sum(logits)))
        layers.append(sum(losses) / len(losses))
    return sum(layers) / len(layers)


def _cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def _mean(values, x):
    return torch.stack(values).mean() if values else 0 * x.sum()


def _pair_mean(positive, negative, balance, x):
    if balance:
        return (_mean(positive, x) + _mean(negative, x)) / 2
    return _mean(positive + negative, x)
