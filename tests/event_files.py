"""Files of events as a shop has them, and what was read of them."""

from pathlib import Path

from logs import kinds_of

SHARED = Path(__file__).parents[2] / "shared" / "data"


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def own(dataset):
    """The events under their own ids and the names of their kinds, in order."""
    log = dataset.log
    columns = log.users.ids[log.user], log.items.ids[log.item], kinds_of(log), log.time.tolist()
    return list(zip(*columns, strict=True))


def steps(dataset):
    return dict(dataset.funnel.steps)
