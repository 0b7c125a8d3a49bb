"""Tables that commands print."""

from rich.table import Table
from rich.text import Text

from raydistill.config.network_settings import described
from raydistill.evaluation.comparison import Comparison


def baselines_table(comparison: Comparison) -> Table:
    """Return a row for each kind of set: accuracy by gradient steps and by nearest neighbours, with what was chosen."""
    config = comparison.config
    title = (
        f"{comparison.num_images} images of {config.dataset}, {described(config.network)}, {config.weights} weights, "
    )
    table = Table(title=Text(f"{title}gradient steps: {comparison.grad_steps}"), title_justify="left")
    table.add_column("images")
    for column in ("gradient steps", "networks", "step size", "k-NN", "k"):
        table.add_column(column, justify="right")
    for name, row in comparison.rows.items():
        table.add_row(
            name.replace("_", " "),
            percent(row.gradient.accuracy, row.gradient.accuracy_std),
            str(row.gradient.nets),
            "learned" if row.gradient.rate is None else f"{row.gradient.rate:g}",
            percent(row.knn.accuracy, row.knn.accuracy_std),
            str(row.knn.k),
        )
    return table


def percent(mean: float, std: float) -> str:
    """Format a fraction and, where it is not 0, its deviation."""
    return f"{100 * mean:.1f}%" + (f" ± {100 * std:.1f}" if std else "")
