"""Files of events as a shop has them, and what was read of them."""

from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared" / "data"


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def own(dataset):
    """The events under their own ids, in order."""
    log = dataset.log
    return [
        (u, i, int(k), int(t))
        for u, i, k, t in zip(log.users.ids[log.user], log.items.ids[log.item], log.kind, log.time, strict=True)
    ]


def steps(dataset):
    return dict(dataset.funnel.steps)
