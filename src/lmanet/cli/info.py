"""`lmanet info`."""

from __future__ import annotations


def info(*, method: str | None = None) -> None:
    """Show versions, the machine, the attention kernel, the methods and the bundled weights.

    Args:
        method: MODULE:CLASS of a method of your own, to be listed too.
    """
    import platform

    import torch
    from rich.console import Console
    from rich.table import Table

    import lmanet
    from lmanet.devices import devices
    from lmanet.methods import METHODS
    from lmanet.ops.native import describe
    from lmanet.third_party import method_of
    from lmanet.zoo import bundled
    from lmanet.zoo.files import read_config

    console = Console()
    default, *others = devices()
    console.print(
        f"lmanet {lmanet.__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}",
        highlight=False,
    )
    console.print(f"devices: {', '.join([f'{default} (default)', *others])}", highlight=False)
    console.print(describe(), highlight=False, soft_wrap=True)
    if method is not None:
        method_of(method)
    table = Table("method", "training", "what it does")
    for name, kind in METHODS.items():
        table.add_row(
            name, "lmanet train" if kind.trainable else "none", (kind.__doc__ or "").partition("\n")[0]
        )
    console.print(table)
    table = Table("weights", "method", "data", "size")
    for name, path in bundled().items():
        config = read_config(path)
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        table.add_row(name, config["method"]["name"], str(config["card"].get("data", "")), size)
    console.print(table)
