"""`lmanet info`."""

from __future__ import annotations


def info() -> None:
    """Show versions, the machine, the attention kernel and the bundled weights."""
    import platform

    import torch
    from rich.console import Console
    from rich.table import Table

    import lmanet
    from lmanet.cli.models import devices
    from lmanet.ops.native import describe
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
    table = Table("weights", "kind", "data", "size")
    for name, path in bundled().items():
        config = read_config(path)
        kind = "video" if "video" in config else "single-frame"
        table.add_row(name, kind, str(config["card"].get("data", "")), f"{path.stat().st_size / 1e6:.1f} MB")
    console.print(table)
