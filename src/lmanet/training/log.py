"""The table of a stage's epochs, `log.csv`."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lmanet.atomic import write_whole

COLUMNS = ("epoch", "loss", "val_miou_percent", "lr", "seconds")


def log_epoch(path: Path, *, epoch: int, loss: float, miou: float | None, lr: float, seconds: float) -> None:
    """Add a row; rows from `epoch` on, which a killed run had logged before this one repeated them, go.

    Args:
        path: the file; made if need be.
        epoch: epochs done.
        loss: mean training loss of the epoch.
        miou: of the validation after it, 0 to 1; None if there was none.
        lr: learning rate at its end.
        seconds: of its training.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = [row for row in list(csv.reader(file))[1:] if int(row[0]) < epoch]
    validated = "" if miou is None else f"{100 * miou:.2f}"
    rows.append([str(epoch), f"{loss:.5f}", validated, f"{lr:.3g}", f"{seconds:.1f}"])
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    write_whole(path, table.getvalue().encode())
